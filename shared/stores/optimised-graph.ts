import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { onnxRuntimeVersion, writeOptimisedGraph } from '../vision/engine-onnx.ts';
import { folderOf, GRAPH_FILE, jsonBytes, type ModelRecord, readJson } from './models.ts';
import type { ObjectStore } from './objects.ts';

/**
 * `models/{name}/{version}/optimised/{machine}.json`: the serving graph as onnxruntime has it in memory on one kind of
 * machine, beside it in `{machine}.ort`. No file of the model: it can be made again from the graph at any time, and
 * predict does without.
 */
const optimisedRecord = z.object({
  schemaVersion: z.literal(1),
  /** Hex SHA-256 of the graph it was made of. */
  graphDigest: z.string(),
  /** Hex SHA-256 of the bytes. */
  digest: z.string(),
  /** What the graph itself gives for a black photo, in the order of the model's classes. */
  blackProbabilities: z.array(z.number()),
});

/** Another processor rounds otherwise; weights in an order meant for another one are far beyond this. */
const TOLERANCE = 1e-3;

/** A graph that opens at once, and what shows whether it is right for this machine. */
export interface OptimisedGraph {
  bytes: Uint8Array;
  /** Hex SHA-256 of the graph it was made of: not the model's own any more when the model's files were written anew. */
  graphDigest: string;
  /** @param probabilities that it gives for a black photo */
  isRight(probabilities: Float32Array): boolean;
}

/** Optimises a model's graph for machines like this one and stores it; where onnxruntime does not run, nothing happens. */
export async function storeOptimisedGraph(
  objects: ObjectStore,
  record: ModelRecord,
  graph: Uint8Array,
  blackProbabilities: Float32Array,
): Promise<void> {
  const key = await keyOf(record);
  if (key === undefined || (await objects.head(`${key}.json`)) !== undefined) return;
  const bytes = await optimise(graph);
  const { digest } = await objects.put(`${key}.ort`, bytes);
  const optimised: z.infer<typeof optimisedRecord> = {
    schemaVersion: 1,
    graphDigest: record.files[GRAPH_FILE]?.digest ?? '',
    digest,
    blackProbabilities: [...blackProbabilities],
  };
  await objects.put(`${key}.json`, jsonBytes(optimised));
}

/**
 * The graph optimised for machines like this one; undefined where nobody has made it, or it is not whole. A model's name is
 * enough to look for it, so its record is fetched meanwhile.
 */
export async function findOptimisedGraph(
  objects: ObjectStore,
  model: Pick<ModelRecord, 'name' | 'version'>,
): Promise<OptimisedGraph | undefined> {
  const key = await keyOf(model);
  if (key === undefined) return undefined;
  const [read, { bytes }] = await Promise.all([
    readJson(objects, `${key}.json`, optimisedRecord),
    objects.get(`${key}.ort`),
  ]);
  const found = read?.value;
  if (found === undefined) return undefined;
  // Before native code reads them, for it takes offsets from them.
  if (createHash('sha256').update(bytes).digest('hex') !== found.digest) return undefined;
  const expected = found.blackProbabilities;
  return {
    bytes,
    graphDigest: found.graphDigest,
    isRight: (probabilities) =>
      probabilities.length === expected.length &&
      probabilities.every((value, index) => Math.abs(value - (expected[index] ?? Number.NaN)) < TOLERANCE),
  };
}

async function optimise(graph: Uint8Array): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-graph-'));
  try {
    const path = join(folder, 'optimised.ort');
    await writeOptimisedGraph(graph, path);
    return await readFile(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function keyOf({ name, version }: Pick<ModelRecord, 'name' | 'version'>): Promise<string | undefined> {
  const runtime = await onnxRuntimeVersion();
  if (runtime === undefined) return undefined;
  machine ??= describeMachine();
  const digest = createHash('sha256')
    .update(`${runtime} ${await machine}`)
    .digest('hex');
  return `${folderOf(name, version)}/optimised/${process.platform}-${process.arch}-${digest.slice(0, 12)}`;
}

let machine: Promise<string> | undefined;

/** What onnxruntime chooses its order of weights by. A virtual machine may hide features that the model's name promises. */
async function describeMachine(): Promise<string> {
  const listing = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  const features = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(listing)?.[1] ?? '';
  return `${process.platform} ${process.arch} ${cpus()[0]?.model ?? ''} ${features}`;
}
