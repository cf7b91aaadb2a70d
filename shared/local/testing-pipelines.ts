import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { createEvent, type Event } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { imageKey } from '../stores/images.ts';
import type { MlflowClient } from '../stores/mlflow-client.ts';
import {
  listModelVersions,
  readChampion,
  readEvaluation,
  readModel,
  readModelFile,
} from '../stores/models.ts';
import type { ObjectStore } from '../stores/objects.ts';
import type { StepRun } from '../stores/steps.ts';
import { type DrawnClass, drawPhoto } from '../vision/drawn.ts';
import { randomBackboneGraph } from '../vision/random-backbone.ts';
import { type PipelineFunction, pipelineFunctions, readChain, requestType } from './pipeline.ts';
import { readTrackedFolder, readTrackedServer } from './testing-tracked.ts';

/** Photos a pipeline is run on: how many of each class. */
export type PhotoCounts = Partial<Record<DrawnClass, number>>;

/** One departure from "everything once". */
export interface Fault {
  kind: 'lost' | 'doubled' | 'unfinished';
  what: string;
}

/** Where a pipeline leaves its traces. */
export interface PipelineStores {
  database: Database;
  objects: ObjectStore;
  trackingDir: string;
  /** The server that runs are tracked on instead. */
  mlflow?: MlflowClient;
}

/** Draws photos into `{folder}/{label}/{number}.jpg`; the same seed draws the same photos. */
export async function drawFolder(folder: string, classes: PhotoCounts, firstSeed: number): Promise<void> {
  for (const [label, count] of Object.entries(classes) as [DrawnClass, number][]) {
    await mkdir(join(folder, label), { recursive: true });
    for (let index = 0; index < count; index++) {
      const name = `${String(index).padStart(4, '0')}.jpg`;
      await writeFile(join(folder, label, name), await drawPhoto(label, firstSeed + index));
    }
  }
}

/**
 * Settings that make a pipeline short: a small backbone of random weights, written into the folder, and a gate that
 * lets whatever comes of it pass.
 */
export async function quickPipelineEnv(folder: string): Promise<Record<string, string>> {
  await mkdir(folder, { recursive: true });
  const backbone = join(folder, 'backbone.onnx');
  await writeFile(backbone, randomBackboneGraph(7));
  const gate = { GATE_MIN_ACCURACY: '0', GATE_MAX_OVERCONFIDENCE: '1' };
  return { ...gate, BACKBONE_URI: backbone, INGEST_FILE_ROOTS: folder };
}

/** The event that asks for a model of the photos in a folder. */
export function requestFor(model: string, folder: string): Event {
  return createEvent({
    type: requestType,
    source: '/dandelion/tests',
    id: model,
    subject: model,
    data: { model, source: { kind: 'folder', uri: pathToFileURL(folder).href }, seed: 1 },
  });
}

/**
 * Waits until every step of a request has succeeded, one was refused for good, or the time is up.
 *
 * @returns the runs of the steps as far as they came
 */
export async function waitForPipeline(
  db: Database,
  request: Event,
  timeoutMs: number,
): Promise<Partial<Record<PipelineFunction, StepRun>>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    // A server that restarts is no answer.
    const chain = await readChain(db, request).catch(() => []);
    const runs = chain.flatMap(({ function: name, run }) =>
      run === undefined ? [] : [[name, run] as const],
    );
    const isDone = runs.filter(([, run]) => run.status === 'succeeded').length === pipelineFunctions.length;
    const isRefused = runs.some(([, run]) => run.status === 'failed' && run.final);
    if (isDone || isRefused || Date.now() > deadline) return Object.fromEntries(runs);
    await sleep(50);
  }
}

/** Holds everything a finished pipeline left against what it should have left: each thing once. */
export async function auditPipeline(
  stores: PipelineStores,
  request: Event,
  classes: PhotoCounts,
): Promise<Fault[]> {
  const model = request.subject ?? '';
  const faults: Fault[] = [];
  const fault = (kind: Fault['kind'], what: string) => void faults.push({ kind, what: `${model}: ${what}` });
  const expectCount = (what: string, found: number, expected: number) => {
    if (found < expected) fault('lost', `${found} ${what} where ${expected} belong`);
    if (found > expected) fault('doubled', `${found} ${what} where ${expected} belong`);
  };
  for (const { function: name, run } of await readChain(stores.database, request)) {
    if (run?.status !== 'succeeded') {
      const why = run?.problem ? ` (${run.problem.code}: ${run.problem.detail})` : '';
      fault('unfinished', `${name} is ${run?.status ?? 'not begun'}${why}`);
    }
  }
  if (faults.length > 0) return faults;
  const photos = Object.values(classes).reduce((sum, count) => sum + count, 0);
  for (const { what, found, expected } of await countRows(stores.database, model, photos)) {
    expectCount(what, found, expected);
  }
  for (const { label, count } of await countLabels(stores.database, model)) {
    expectCount(`dataset photos of ${label}`, count, classes[label as DrawnClass] ?? 0);
  }
  const damaged = await damagedPhotos(stores, model);
  if (damaged.length > 0)
    fault('lost', `${damaged.length} photos are missing or damaged in the object store`);
  await auditModel(stores, model, fault, expectCount);
  return faults;
}

async function countRows(db: Database, model: string, photos: number) {
  const ofModel = db`coalesce(event -> 'data' -> 'model' ->> 'name', event -> 'data' ->> 'model') = ${model}`;
  const [row] = await db<Record<string, number>[]>`
    select
      (select count(*)::int from steps where ${ofModel}) as "runs in the ledger",
      (select count(*)::int from ingestions where model = ${model} and finished_at is not null) as ingestions,
      (select count(*)::int from ingestion_images where model = ${model}) as "ingested entries",
      (select count(*)::int from images where model = ${model}) as photos,
      (select count(*)::int from features where model = ${model}) as "feature vectors",
      (select count(*)::int from datasets where model = ${model}) as "dataset versions",
      (select count(*)::int from dataset_images where model = ${model}) as "dataset photos"`;
  const expected: Record<string, number> = {
    'runs in the ledger': pipelineFunctions.length,
    ingestions: 1,
    'dataset versions': 1,
  };
  return Object.entries(row ?? {}).map(([what, found]) => ({
    what,
    found,
    expected: expected[what] ?? photos,
  }));
}

function countLabels(db: Database, model: string): Promise<{ label: string; count: number }[]> {
  return db`select label, count(*)::int from dataset_images where model = ${model} group by label`;
}

async function damagedPhotos({ database, objects }: PipelineStores, model: string): Promise<string[]> {
  const rows = await database<{ sha256: string }[]>`select sha256 from images where model = ${model}`;
  const damaged: string[] = [];
  for (const { sha256 } of rows) {
    const found = await objects.get(imageKey(sha256)).catch(() => undefined);
    const digest = found && createHash('sha256').update(found.bytes).digest('hex');
    if (digest !== sha256) damaged.push(sha256);
  }
  return damaged;
}

async function auditModel(
  stores: PipelineStores,
  model: string,
  fault: (kind: Fault['kind'], what: string) => void,
  expectCount: (what: string, found: number, expected: number) => void,
): Promise<void> {
  const { objects } = stores;
  const versions = await listModelVersions(objects, model);
  expectCount('model versions', versions.length, 1);
  const [version] = versions;
  if (version === undefined) return;
  const record = await readModel(objects, model, version);
  for (const file of Object.keys(record.files)) {
    await readModelFile(objects, record, file).catch((error: Error) => fault('lost', error.message));
  }
  if ((await readEvaluation(objects, model, version)) === undefined) fault('lost', 'no evaluation');
  const champion = (await readChampion(objects, model))?.champion;
  if (champion?.version !== version) fault('lost', `${champion?.version ?? 'nobody'} serves, not ${version}`);
  if (champion !== undefined && champion.previous !== null)
    fault('doubled', 'the champion was deployed twice');
  await auditTracking(stores, model, version, fault, expectCount);
}

async function auditTracking(
  { trackingDir, mlflow }: PipelineStores,
  model: string,
  version: string,
  fault: (kind: Fault['kind'], what: string) => void,
  expectCount: (what: string, found: number, expected: number) => void,
): Promise<void> {
  const tracked =
    mlflow === undefined
      ? await readTrackedFolder(trackingDir, model, version)
      : await readTrackedServer(mlflow, model, version);
  expectCount('tracked runs', tracked.runs, 1);
  if (tracked.status !== 'FINISHED') fault('unfinished', `the tracked run is ${tracked.status}`);
  const distinct = new Set(tracked.points.map(({ key, step }) => `${key} ${step}`));
  expectCount('metric values', tracked.points.length, distinct.size);
  for (const key of ['validation/accuracy', 'test/accuracy']) {
    if (!distinct.has(`${key} 0`)) fault('lost', `no metric ${key}`);
  }
  expectCount('registered versions', tracked.registeredVersions, 1);
  if (tracked.candidate !== version || tracked.champion !== version) {
    fault('lost', 'the registry names another version');
  }
}
