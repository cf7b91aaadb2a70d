import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { sendToBroker } from '../../shared/cli/kubernetes-api.ts';
import { createEvent, type Event, type EventData } from '../../shared/events.ts';
import { pipelineFunctions, readChain } from '../../shared/local/pipeline.ts';
import { listModelVersions } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { type DrawnClass, drawPhoto } from '../../shared/vision/drawn.ts';
import type { TestCluster } from './cluster.ts';
import type { Suite } from './stage.ts';

export const CLASSES = ['dandelion', 'grass'] as const satisfies readonly DrawnClass[];
const SOURCE = '/dandelion/e2e';
const BROKER = 'dandelion';
const PUTS_AT_ONCE = 8;

/** Draws photos into a folder of the bucket. @returns its `s3://` address */
export async function storePhotos(
  { objects, bucket }: { objects: ObjectStore; bucket: string },
  count: number,
  firstSeed: number,
): Promise<string> {
  const folder = `e2e/${randomBytes(4).toString('hex')}`;
  const left = CLASSES.flatMap((label) => Array.from({ length: count }, (_, index) => ({ label, index })));
  const store = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const seed = firstSeed + next.index;
      await objects.put(`${folder}/${next.label}/${seed}.jpg`, await drawPhoto(next.label, seed));
    }
  };
  await Promise.all(Array.from({ length: PUTS_AT_ONCE }, store));
  return `s3://${bucket}/${folder}/`;
}

/** The event that asks for a model of the photos. */
export function retrainRequest(model: string, uri: string, seed = 1): Event {
  return createEvent({
    type: 'dev.dandelion.retrain.requested.v1',
    source: SOURCE,
    id: randomBytes(8).toString('hex'),
    data: { model, source: { kind: 'folder', uri }, seed },
  });
}

/** The event that lets deploy bring a version to the traffic, as evaluate would send it. */
export function approval(
  event: Event,
  version: string,
  canary: EventData<'dev.dandelion.model.approved.v1'>['canary'],
): Event {
  const data = event.data as EventData<'dev.dandelion.model.approved.v1'>;
  return createEvent({
    type: 'dev.dandelion.model.approved.v1',
    source: SOURCE,
    id: randomBytes(8).toString('hex'),
    data: { ...data, model: { name: data.model.name, version }, canary },
  });
}

export function send({ api, namespace }: TestCluster, event: Event): Promise<void> {
  return sendToBroker(api, { namespace, name: BROKER }, event);
}

/**
 * Sends an event and does not wait for the answer: a broker on channels in memory gives it when every step that takes the
 * event has, so a canary would be over.
 */
export function sendWithoutWaiting(suite: Pick<Suite, 'cluster' | 'say'>, event: Event): void {
  send(suite.cluster, event).catch((error: unknown) => {
    suite.say(`  the broker gave no answer: ${error instanceof Error ? error.message : String(error)}`);
  });
}

/** Waits until the last step of a request has an outcome. @returns the chain as far as it came */
export async function followChain(
  { db }: TestCluster,
  request: Event,
  { timeoutMs, onWait }: { timeoutMs: number; onWait?: (() => Promise<void>) | undefined },
) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    // A database that is away for a moment is no answer.
    const chain = await readChain(db, request).catch(() => []);
    const last = chain.at(-1)?.run;
    const isRefused = chain.some(({ run }) => run?.status === 'failed' && run.final);
    if (last?.status === 'succeeded' || isRefused || Date.now() > deadline) return chain;
    await onWait?.();
    await sleep(200);
  }
}

/** How often each thing was done so far. */
export interface Tally {
  steps: number;
  deployments: number;
  versions: number;
}

export async function tally({ db, objects, model }: TestCluster): Promise<Tally> {
  const [row] = await db<{ steps: number; deployments: number }[]>`
    select (select count(*)::int from steps) as steps, (select count(*)::int from deployments) as deployments`;
  return {
    ...{ steps: 0, deployments: 0 },
    ...row,
    versions: (await listModelVersions(objects, model)).length,
  };
}

/** What is wrong with chains that should have gone through once each: nothing, or a sentence for each fault. */
export async function auditChains(
  cluster: TestCluster,
  requests: readonly Event[],
  before: Tally,
): Promise<{ lost: string[]; doubled: string[] }> {
  const lost: string[] = [];
  for (const request of requests) {
    for (const { function: name, run } of await readChain(cluster.db, request)) {
      if (run?.status === 'succeeded') continue;
      lost.push(`${name} is ${run?.status ?? 'not begun'} ${run?.problem?.detail ?? ''}`);
    }
  }
  const after = await tally(cluster);
  const expected = { steps: pipelineFunctions.length, deployments: 1, versions: 1 };
  const doubled = Object.entries(expected).flatMap(([what, each]) => {
    const surplus = after[what as keyof Tally] - before[what as keyof Tally] - each * requests.length;
    return surplus > 0 ? [`${surplus} ${what} too many`] : [];
  });
  return { lost, doubled };
}
