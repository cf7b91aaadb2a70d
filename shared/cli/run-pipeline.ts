import type { DandelionError } from '../errors.ts';
import { createEvent, digestOf, type Event } from '../events.ts';
import { type PipelineState, readChain, requestType } from '../local/pipeline.ts';
import type { Platform } from '../local/platform.ts';
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
  const request = retrainRequest(platform.modelName, prepared, productVersion);
  await retryRefused(platform, request);
  await platform.broker.publish(request);
  findings.state = await followToEnd(platform, signal);
  findings.chain = await readChain(platform.database, request);
  return failureOf(findings.state, platform.logsDir);
}

function retrainRequest(model: string, { source, digest }: PreparedSource, productVersion: string): Event {
  return createEvent({
    type: requestType,
    source: '/dandelion/cli',
    id: digestOf(source.kind, source.uri, digest, model, String(seed), productVersion).slice(0, 32),
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
