import { DandelionError, toDandelionError } from '../errors.ts';
import {
  answerPhoto,
  classifyPixels,
  type Engine,
  type EngineOptions,
  openClassicalEngine,
  openEngine,
  type PhotoAnswer,
  type RunOptions,
} from '../vision/engine.ts';
import { parseHead } from '../vision/head.ts';
import { fetchModelFile, GRAPH_FILE, type ModelRecord, readModel, readModelFile } from './models.ts';
import type { ObjectStore } from './objects.ts';
import { findOptimisedGraph, type OptimisedGraph, storeOptimisedGraph } from './optimised-graph.ts';

/** A graph that `openEngine` takes. */
export interface ServingGraph {
  bytes: Uint8Array;
  /** Made for machines like this one (see `OnnxRuntimeOptions.optimised`). */
  optimised: boolean;
}

/** A model in memory, ready to answer. */
export interface ServedModel {
  record: ModelRecord;
  engine: Engine;
  sizeBytes: number;
  /** @param pixels n x size x size x 3; returns n x classes probabilities in the order of `record.classes` */
  classify(pixels: Uint8Array, photos: number): Promise<Float32Array>;
  /** @param pixels size x size x 3 */
  answer(pixels: Uint8Array, options?: RunOptions): Promise<PhotoAnswer>;
  /** Its graph, for engines in other threads; a model on classical features has none. */
  graph?: ServingGraph;
  close(): Promise<void>;
}

/**
 * Loads a model from the object store, digests checked, and runs it once so that the first caller does not pay.
 * Where {@link prepareServedModel} has optimised its graph for machines like this, it opens in a fraction of the time.
 *
 * @throws DandelionError `model-broken` with the reason: missing, damaged, or refused by the engine
 */
export async function openServedModel(
  objects: ObjectStore,
  name: string,
  version: string,
  options: EngineOptions = {},
): Promise<ServedModel> {
  try {
    const [record, optimised] = await Promise.all([
      readModel(objects, name, version),
      findOptimisedGraph(objects, { name, version }).catch(() => undefined),
    ]);
    return (await openOptimised(record, optimised, options)) ?? (await openStored(objects, record, options));
  } catch (thrown) {
    const reason = toDandelionError(thrown).message;
    throw new DandelionError('model-broken', `Model ${name} ${version} cannot be loaded: ${reason}`, {
      cause: thrown,
    });
  }
}

/**
 * Loads a model as {@link openServedModel} does, and stores its graph optimised for machines like this one, so that
 * those who serve it are ready sooner and need less memory.
 *
 * @throws DandelionError `model-broken`
 */
export async function prepareServedModel(
  objects: ObjectStore,
  name: string,
  version: string,
): Promise<ServedModel> {
  const model = await openServedModel(objects, name, version);
  if (model.graph === undefined || model.graph.optimised) return model;
  const black = await model.classify(blackPhoto(model.engine), 1);
  await storeOptimisedGraph(objects, model.record, model.graph.bytes, black);
  return model;
}

async function openOptimised(
  record: ModelRecord,
  found: OptimisedGraph | undefined,
  options: EngineOptions,
): Promise<ServedModel | undefined> {
  if (found === undefined || found.graphDigest !== record.files[GRAPH_FILE]?.digest) return undefined;
  const { bytes, isRight } = found;
  try {
    const engine = await openEngine(bytes, { ...options, optimised: true });
    const model = servedModel(record, engine, { bytes, optimised: true });
    if (isRight(await model.classify(blackPhoto(engine), 1))) return model;
    await model.close();
  } catch {
    // Of another machine after all; the graph itself is at hand.
  }
  return undefined;
}

async function openStored(
  objects: ObjectStore,
  record: ModelRecord,
  options: EngineOptions,
): Promise<ServedModel> {
  const { engine, bytes } = await openEngineOf(objects, record, options);
  const model = servedModel(record, engine, bytes && { bytes, optimised: false });
  await model.classify(blackPhoto(engine), 1);
  return model;
}

function servedModel(record: ModelRecord, engine: Engine, graph: ServingGraph | undefined): ServedModel {
  return {
    record,
    engine,
    sizeBytes: Object.values(record.files).reduce((sum, file) => sum + file.sizeBytes, 0),
    classify: (pixels, photos) => classifyPixels(engine, record.classes, pixels, photos),
    answer: (pixels, run) => answerPhoto(engine, record.classes, pixels, run),
    ...(graph && { graph }),
    close: () => engine.close(),
  };
}

function blackPhoto({ inputSize }: Engine): Uint8Array {
  return new Uint8Array(inputSize * inputSize * 3);
}

async function openEngineOf(
  objects: ObjectStore,
  record: ModelRecord,
  options: EngineOptions,
): Promise<{ engine: Engine; bytes?: Uint8Array }> {
  if (GRAPH_FILE in record.files) {
    const { bytes, intact } = await fetchModelFile(objects, record, GRAPH_FILE);
    const [engine, check] = await Promise.allSettled([openEngine(bytes, options), intact]);
    // A damaged file is damaged first, whatever the engine made of it.
    if (check.status === 'rejected') {
      if (engine.status === 'fulfilled') await engine.value.close();
      throw check.reason;
    }
    if (engine.status === 'rejected') throw engine.reason;
    return { engine: engine.value, bytes };
  }
  return { engine: openClassicalEngine(parseHead(await readModelFile(objects, record, 'head.bin'))) };
}
