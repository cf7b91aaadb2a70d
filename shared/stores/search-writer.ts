import { setTimeout as delay } from 'node:timers/promises';
import { type Search, searchBackOffMs } from './search.ts';
import type { SearchDocument } from './search-documents.ts';

/** What became of documents so far. */
export interface SearchCounts {
  stored: number;
  /** Refused by the server for good, as for a value that does not fit its field. */
  refused: number;
  /** Never sent: the buffer was full, or the process stopped. */
  dropped: number;
}

/** Brings documents to Elasticsearch in the background; nobody waits for it, whatever the server does. */
export interface SearchWriter {
  /** Takes a document unless the buffer is full; it is counted as dropped then. Never throws. */
  offer(document: SearchDocument): boolean;
  counts(): Readonly<SearchCounts>;
  /** Sends what waits, no longer than until the signal aborts; the rest is dropped. Takes nothing afterwards. */
  close(signal: AbortSignal): Promise<void>;
}

export interface WriterOptions {
  search: Pick<Search, 'send'>;
  /** Hears of trouble, at most once a minute; must not lead back into this writer. */
  say(sentence: string): void;
  /** Bounds of what waits and what is under way. */
  maxDocuments?: number;
  maxBytes?: number;
  /** A request is sent when so much waits, or when the oldest has waited so long. */
  batchDocuments?: number;
  batchBytes?: number;
  flushAfterMs?: number;
  sayEveryMs?: number;
}

interface Entry {
  document: SearchDocument;
  sizeBytes: number;
  /** Times the server met a fault of its own with this one. */
  faults: number;
}

/** A document that the server fails at again and again would hold up all others. */
const MOST_FAULTS = 5;

/** Opens a writer with a bounded buffer; it connects with the first batch. */
export function createSearchWriter(options: WriterOptions): SearchWriter {
  const { search, maxDocuments = 10_000, maxBytes = 8_000_000 } = options;
  const { batchDocuments = 1000, batchBytes = 2_000_000, flushAfterMs = 2000 } = options;
  const counts: SearchCounts = { stored: 0, refused: 0, dropped: 0 };
  const trouble = createTrouble(options, counts);
  const ending = new AbortController();
  let waiting: Entry[] = [];
  let kept = { documents: 0, bytes: 0 };
  let failures = 0;
  let timer: NodeJS.Timeout | undefined;
  let working: Promise<void> | undefined;
  let closed = false;

  const forget = (entries: readonly Entry[]): void => {
    kept.documents -= entries.length;
    for (const { sizeBytes } of entries) kept.bytes -= sizeBytes;
  };

  const takeBatch = (): Entry[] => {
    let size = 0;
    let bytes = 0;
    while (size < Math.min(batchDocuments, waiting.length)) {
      bytes += waiting[size]?.sizeBytes ?? 0;
      if (size > 0 && bytes > batchBytes) break;
      size += 1;
    }
    return waiting.splice(0, size);
  };

  /** Sends one batch and settles its documents. @returns whether the next may follow at once */
  const sendOne = async (): Promise<boolean> => {
    const batch = takeBatch();
    const entryOf = new Map(batch.map((entry) => [entry.document, entry]));
    try {
      const outcome = await search.send(
        batch.map(({ document }) => document),
        ending.signal,
      );
      const failed = outcome.failed.map((fault) => ({ ...fault, entry: entryOf.get(fault.document) }));
      for (const { entry } of failed) if (entry !== undefined) entry.faults += 1;
      const hopeless = failed.filter(({ entry }) => entry !== undefined && entry.faults >= MOST_FAULTS);
      const repeated = new Set([...outcome.busy, ...failed.map(({ document }) => document)]);
      const again = batch.filter(({ document, faults }) => repeated.has(document) && faults < MOST_FAULTS);
      counts.stored += outcome.stored + outcome.duplicates;
      counts.refused += outcome.refused.length + hopeless.length;
      const reason = outcome.refused[0]?.reason ?? failed[0]?.reason;
      if (reason !== undefined) trouble.met(reason);
      const stays = new Set(again);
      forget(batch.filter((entry) => !stays.has(entry)));
      waiting.unshift(...again);
      failures = again.length > 0 ? failures + 1 : 0;
    } catch (error) {
      // Nothing is known of them; ids make a repeat harmless.
      waiting.unshift(...batch);
      failures += 1;
      trouble.met(error instanceof Error ? error.message : String(error));
    }
    return failures === 0;
  };

  const work = async (): Promise<void> => {
    do {
      if (!(await sendOne())) break;
    } while (waiting.length >= batchDocuments);
    working = undefined;
    if (waiting.length > 0 && !closed) wakeIn(failures === 0 ? flushAfterMs : searchBackOffMs(failures));
  };
  const wakeIn = (ms: number): void => {
    timer = setTimeout(start, ms).unref();
  };
  const start = (): void => {
    clearTimeout(timer);
    timer = undefined;
    working ??= work();
  };

  const finish = async (signal: AbortSignal): Promise<void> => {
    await working;
    while (waiting.length > 0 && !signal.aborted) {
      if (await sendOne()) continue;
      await delay(searchBackOffMs(Math.min(failures, 2)), undefined, { signal }).catch(() => {});
    }
  };

  return {
    counts: () => counts,
    offer(document) {
      const sizeBytes = Buffer.byteLength(document.json);
      if (closed || kept.documents >= maxDocuments || kept.bytes + sizeBytes > maxBytes) {
        counts.dropped += 1;
        trouble.noteDrops();
        return false;
      }
      waiting.push({ document, sizeBytes, faults: 0 });
      kept.documents += 1;
      kept.bytes += sizeBytes;
      if (working !== undefined) return true;
      // While the server is away its timer decides, however much waits.
      if (waiting.length >= batchDocuments && failures === 0) start();
      else if (timer === undefined) wakeIn(flushAfterMs);
      return true;
    },
    async close(signal) {
      closed = true;
      clearTimeout(timer);
      const cutOff = new Promise<void>((resolve) => {
        const cut = () => {
          ending.abort();
          resolve();
        };
        if (signal.aborted) cut();
        else signal.addEventListener('abort', cut, { once: true });
      });
      // The work may be held up by what no signal reaches, as a set-up under way.
      await Promise.race([finish(signal), cutOff]);
      counts.dropped += kept.documents;
      waiting = [];
      kept = { documents: 0, bytes: 0 };
      trouble.close();
    },
  };
}

/** Gathers what is lost and why, and tells of it once a minute. */
function createTrouble({ say, sayEveryMs = 60_000 }: WriterOptions, counts: Readonly<SearchCounts>) {
  let told = { refused: 0, dropped: 0 };
  let reason: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let saidAt = Number.NEGATIVE_INFINITY;

  const tell = (): void => {
    clearTimeout(timer);
    timer = undefined;
    saidAt = performance.now();
    const dropped = counts.dropped - told.dropped;
    const refused = counts.refused - told.refused;
    told = { ...counts };
    const losses = [
      ...(dropped > 0 ? [`${dropped} documents were dropped`] : []),
      ...(refused > 0 ? [`${refused} documents were refused`] : []),
    ];
    const lost = losses.length > 0 ? losses.join(' and ') : 'documents wait';
    say(`Elasticsearch: ${lost}${reason === undefined ? '' : `: ${reason}`}`);
    reason = undefined;
  };
  const tellSoon = (): void => {
    // The first words may be early: what is lost meanwhile comes with the next.
    timer ??= setTimeout(tell, Math.max(0, saidAt + sayEveryMs - performance.now())).unref();
  };
  return {
    met(why: string) {
      reason = why;
      tellSoon();
    },
    noteDrops: tellSoon,
    close() {
      clearTimeout(timer);
      if (counts.dropped > told.dropped || counts.refused > told.refused) tell();
    },
  };
}
