import { extractorSettings, readConfig } from '../config.ts';
import type { DandelionError } from '../errors.ts';
import { createEvent, digestOf, type Event, parseEventData, type Rejection } from '../events.ts';
import { type ChainLink, type PipelineState, readChain, requestType } from '../local/pipeline.ts';
import type { Platform } from '../local/platform.ts';
import type { Database } from '../stores/database.ts';
import { listRejections } from '../stores/images.ts';
import { readChampion, readModel } from '../stores/models.ts';
import { createProgressView } from './progress.ts';
import { type Findings, failureOf } from './report.ts';
import type { PreparedSource } from './source.ts';

/** Seeds split and training: the same photos make the same model. */
const seed = 1;

/**
 * Asks for a training on these photos and follows it to its end, with progress in the terminal.
 *
 * The request's id is a digest of what is asked for, so asking again finds the steps that are done.
 *
 * @param signal gives the terminal back; the run itself is the ledger's
 * @returns what went wrong, if anything; `findings` gets the run either way
 */
export async function runPipeline(
  platform: Platform,
  prepared: PreparedSource,
  productVersion: string,
  findings: Findings,
  signal: AbortSignal,
): Promise<DandelionError | undefined> {
  const request = await chooseRequest(platform, prepared, productVersion);
  await retryRefused(platform, request);
  await platform.broker.publish(request);
  findings.state = await followToEnd(platform, signal);
  findings.chain = await readChain(platform.database, request);
  findings.rejected = await allRejections(platform.database, findings.chain);
  return failureOf(findings.state, platform.logsDir);
}

/** Of ingest, whose event names the first ones alone, and of preprocess. */
async function allRejections(
  database: Database,
  chain: readonly ChainLink[],
): Promise<Rejection[] | undefined> {
  const ingested = chain.find((link) => link.function === 'ingest')?.run?.result ?? undefined;
  if (ingested === undefined) return undefined;
  const { ingestion } = parseEventData(ingested, 'dev.dandelion.images.ingested.v1');
  return (await listRejections(database, ingestion)).map(({ source, reason }) => ({ source, reason }));
}

/** The request for these photos; a new one where the model that the last one made is no longer what serves. */
async function chooseRequest(
  platform: Platform,
  prepared: PreparedSource,
  productVersion: string,
): Promise<Event> {
  const request = retrainRequest(platform.modelName, prepared, productVersion);
  const occasion = await whyAnew(platform, request);
  return occasion === undefined
    ? request
    : retrainRequest(platform.modelName, prepared, productVersion, occasion);
}

/**
 * A request that was worked to its end is answered from the ledger, which is wrong in two cases: a model of other
 * photos or features was deployed since, or the model's files are gone.
 */
async function whyAnew(
  { database, objects, modelName }: Platform,
  request: Event,
): Promise<string | undefined> {
  const deployed = (await readChain(database, request)).at(-1)?.run?.result ?? undefined;
  if (deployed?.type !== 'dev.dandelion.model.deployed.v1') return undefined;
  const { version } = parseEventData(deployed, deployed.type).model;
  const made = await readModel(objects, modelName, version).catch(() => undefined);
  const champion = (await readChampion(objects, modelName))?.champion.version;
  if (made === undefined || champion === undefined)
    return `the files of ${version} are gone at ${Date.now()}`;
  const serving = await readModel(objects, modelName, champion).catch(() => undefined);
  const isSame =
    serving?.dataset.version === made.dataset.version && serving.extractor.id === made.extractor.id;
  return isSame ? undefined : `after ${champion}`;
}

/** What makes the features, where it was chosen: other features are another model. */
function chosenExtractor(): string[] {
  const { BACKBONE_URI: uri, BACKBONE_PRECISION: precision } = readConfig(extractorSettings);
  return uri === undefined && precision === undefined ? [] : [uri ?? '', precision ?? ''];
}

function retrainRequest(
  model: string,
  { source, digest }: PreparedSource,
  productVersion: string,
  occasion = '',
): Event {
  const asked = [source.kind, source.uri, digest, model, String(seed), productVersion, occasion];
  return createEvent({
    type: requestType,
    source: '/dandelion/cli',
    id: digestOf(...asked, ...chosenExtractor()).slice(0, 32),
    subject: model,
    data: { model, source, seed, reason: 'asked for on the command line' },
  });
}

/**
 * A step that refused its input gives the same answer for ever. The person who starts again has perhaps mended what
 * was wrong outside of it (a server, a network), so such a step is worked anew.
 */
async function retryRefused({ database, processes }: Platform, request: Event): Promise<void> {
  for (const { function: name, run } of await readChain(database, request)) {
    if (run === undefined || run.status === 'succeeded' || !run.final) continue;
    const { url, release } = await processes.acquire(name);
    const token = process.env.DANDELION_TOKEN;
    const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
    try {
      await fetch(`${url}/runs/${run.id}/retry`, { method: 'POST', headers });
    } finally {
      release();
    }
  }
}

/** Draws progress until every step is done or one has failed. */
async function followToEnd({ pipeline }: Platform, signal: AbortSignal): Promise<PipelineState> {
  const view = createProgressView(process.stdout);
  const { promise, resolve, reject } = Promise.withResolvers<PipelineState>();
  signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  const end = pipeline.subscribe((state) => {
    view.update(state);
    const statuses = state.steps.map((step) => step.status);
    if (statuses.includes('failed') || statuses.every((status) => status === 'succeeded')) resolve(state);
  });
  try {
    return await promise;
  } finally {
    end();
    view.stop();
  }
}
