import { randomBytes } from 'node:crypto';
import { type Event, runIdOf } from '../../shared/events.ts';
import { type Deployment, hasEnded, readDeployment } from '../../shared/stores/deployments.ts';
import { readChampion, readModel, readModelFile, saveModel } from '../../shared/stores/models.ts';
import { until } from './cluster.ts';
import type { Suite } from './stage.ts';

export const DEPLOYMENT_TIMEOUT_MS = 420_000;
export const CANARY = {
  shares: [10, 50],
  minSamples: 40,
  maxErrorRate: 0.01,
  maxLatencyRatio: 3,
  stageTimeoutMs: 180_000,
};
/** Deploy asks at most 50 times a second, so that a stage takes 8 s at least: time to break something in it. */
export const SLOW_CANARY = { ...CANARY, minSamples: 400 };

/** @throws Error when nothing serves */
export async function championOf({ cluster }: Suite): Promise<string> {
  const found = await readChampion(cluster.objects, cluster.model);
  if (found === undefined) throw new Error('there is no champion');
  return found.champion.version;
}

/** Stores a version again under another name, so that a rollout has something new to bring. @returns the new version */
export async function copyOf(
  { cluster }: Suite,
  version: string,
  { damage, as = cluster.model }: { damage?: (bytes: Buffer) => Buffer; as?: string } = {},
): Promise<string> {
  const { objects, model } = cluster;
  const { files, ...record } = await readModel(objects, model, version);
  const contents: Record<string, Buffer> = {};
  for (const file of Object.keys(files))
    contents[file] = await readModelFile(objects, { ...record, files }, file);
  const copy = `v${randomBytes(5).toString('hex')}`;
  await saveModel(objects, { ...record, name: as, version: copy }, contents);
  if (damage !== undefined) {
    const file = 'serving.onnx' in files ? 'serving.onnx' : 'head.bin';
    await objects.put(`models/${as}/${copy}/${file}`, damage(contents[file] ?? Buffer.alloc(0)));
  }
  return copy;
}

/** What a disk might do to a graph. */
export const damageGraph = (bytes: Buffer): Buffer => Buffer.from(bytes).fill(0, 1000, 2000);

export function stateOf({ cluster }: Suite, event: Event): Promise<Deployment | undefined> {
  return readDeployment(cluster.db, runIdOf('deploy', event.source, event.id));
}

export async function untilEnded(suite: Suite, event: Event): Promise<Deployment | undefined> {
  let state: Deployment | undefined;
  await until(
    'the deployment ends',
    async () => {
      state = await stateOf(suite, event);
      return state !== undefined && hasEnded(state);
    },
    { timeoutMs: DEPLOYMENT_TIMEOUT_MS },
  );
  return state;
}

/** True when two deployments were under way at the same time. */
export async function overlaps({ cluster }: Suite, first: Event, second: Event): Promise<boolean> {
  const idOf = (event: Event) => runIdOf('deploy', event.source, event.id);
  const [row] = await cluster.db<{ overlaps: boolean }[]>`
    select a.finished_at > b.created_at as overlaps from deployments a, deployments b
    where a.id = ${idOf(first)} and b.id = ${idOf(second)}`;
  return row?.overlaps ?? true;
}
