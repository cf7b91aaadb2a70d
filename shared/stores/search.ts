import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '@elastic/elasticsearch';
import type { SearchSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { type BulkOutcome, type RefusedDocument, sendBulk } from './search-bulk.ts';
import type { SearchDocument } from './search-documents.ts';
import { explainSearchFault, statusOf } from './search-faults.ts';
import { setUpTemplates } from './search-templates.ts';

/** Elasticsearch, as the product uses it. */
export interface Search {
  /** Address without credentials. */
  host: string;
  namespace: string;
  /** The official client, loaded at the first call: nobody pays for it before. */
  client(): Promise<Client>;
  /**
   * Sends documents once, after templates are in place.
   *
   * @throws DandelionError `store-unavailable` or `bad-config` when the request as a whole failed
   */
  send(documents: readonly SearchDocument[], signal?: AbortSignal): Promise<BulkOutcome>;
  /**
   * Stores documents, with repeats while the server is busy or away, until the signal aborts. For callers who want to
   * know; those who must not wait use a writer.
   *
   * @returns those the server refused for good
   * @throws DandelionError `store-unavailable` when the signal aborted first; a repeat with the same ids stores the rest
   */
  store(documents: readonly SearchDocument[], signal: AbortSignal): Promise<RefusedDocument[]>;
  /** Gives connections back; requests under way are not waited for. */
  close(): void;
}

/** Until the answer begins, and between two parts of it. */
const REQUEST_TIMEOUT_MS = 10_000;
const BATCH = 500;
const FIRST_BACK_OFF_MS = 200;
const LONGEST_BACK_OFF_MS = 30_000;

/** The wait after that many failures in a row: doubling, up to half a minute, spread so that pods do not march in step. */
export function searchBackOffMs(failures: number): number {
  const ms = Math.min(LONGEST_BACK_OFF_MS, FIRST_BACK_OFF_MS * 2 ** Math.min(failures - 1, 20));
  return ms * (0.75 + Math.random() / 2);
}

/**
 * Opens Elasticsearch; `undefined` where no ELASTICSEARCH_URL is set. Connects to nothing yet.
 *
 * @param notice hears, once each, what the server cannot do
 */
export function openSearch(
  settings: SearchSettings,
  notice: (sentence: string) => void = () => {},
): Search | undefined {
  const { ELASTICSEARCH_URL: url, ELASTICSEARCH_NAMESPACE: namespace } = settings;
  if (url === undefined) return undefined;
  let loading: Promise<Client> | undefined;
  let settingUp: Promise<void> | undefined;
  const client = () => {
    loading ??= makeClient(url, settings.ELASTICSEARCH_API_KEY);
    return loading;
  };
  const setUp = () => {
    settingUp ??= setUpOrGoOn(settings, client, notice);
    settingUp.catch(() => {
      settingUp = undefined;
    });
    return settingUp;
  };
  const send: Search['send'] = async (documents, signal) => {
    try {
      await setUp();
      return await sendBulk(await client(), documents, signal);
    } catch (error) {
      throw explainSearchFault(error, url);
    }
  };
  return {
    host: new URL(url).host,
    namespace,
    client,
    send,
    async store(documents, signal) {
      const refused: RefusedDocument[] = [];
      for (let start = 0; start < documents.length; start += BATCH) {
        refused.push(...(await storeBatch(send, documents.slice(start, start + BATCH), signal)));
      }
      return refused;
    },
    close() {
      loading?.then((loaded) => loaded.close()).catch(() => {});
    },
  };
}

async function makeClient(url: string, apiKey: string | undefined): Promise<Client> {
  const [{ Client: ElasticsearchClient }, { PunctualConnection }] = await Promise.all([
    import('@elastic/elasticsearch'),
    import('./search-connection.ts'),
  ]);
  return new ElasticsearchClient({
    node: url,
    Connection: PunctualConnection,
    ...(apiKey === undefined ? {} : { auth: { apiKey } }),
    // Repeats are ours: they know which documents of a request still need one.
    maxRetries: 0,
    requestTimeout: REQUEST_TIMEOUT_MS,
  });
}

async function setUpOrGoOn(
  settings: SearchSettings,
  client: () => Promise<Client>,
  notice: (sentence: string) => void,
): Promise<void> {
  try {
    const { notices } = await setUpTemplates(await client(), settings);
    for (const sentence of notices) notice(sentence);
  } catch (error) {
    if (statusOf(error) !== 403) throw error;
    // Where an operator keeps the templates, writing is all a function may do.
    notice('the credentials may not put index templates into Elasticsearch; those that are there are used');
  }
}

async function storeBatch(
  send: Search['send'],
  batch: readonly SearchDocument[],
  signal: AbortSignal,
): Promise<RefusedDocument[]> {
  const refused: RefusedDocument[] = [];
  let rest = batch;
  let reason = 'is busy';
  for (let failures = 0; rest.length > 0; ) {
    if (signal.aborted) {
      throw new DandelionError('store-unavailable', `Elasticsearch did not take all documents: ${reason}`, {
        retryAfterMs: 5000,
      });
    }
    try {
      const outcome = await send(rest, signal);
      refused.push(...outcome.refused);
      rest = [...outcome.busy, ...outcome.failed.map(({ document }) => document)];
      reason = outcome.failed[0]?.reason ?? 'it is busy';
    } catch (error) {
      if (error instanceof DandelionError && error.code === 'bad-config') throw error;
      reason = error instanceof Error ? error.message : String(error);
    }
    if (rest.length === 0) break;
    failures += 1;
    await delay(searchBackOffMs(failures), undefined, { signal }).catch(() => {});
  }
  return refused;
}
