import { DandelionError, toDandelionError } from '../errors.ts';
import { parseHead } from '../vision/classifier.ts';
import {
  answerPhoto,
  classifyPixels,
  type Engine,
  type EngineOptions,
  openClassicalEngine,
  openEngine,
  type PhotoAnswer,
} from '../vision/engine.ts';
import { fetchModelFile, type ModelRecord, readModel, readModelFile } from './models.ts';
import type { ObjectStore } from './objects.ts';

const GRAPH_FILE = 'serving.onnx';

/** A model in memory, ready to answer. */
export interface ServedModel {
  record: ModelRecord;
  engine: Engine;
  sizeBytes: number;
  /** @param pixels n x size x size x 3; returns n x classes probabilities in the order of `record.classes` */
  classify(pixels: Uint8Array, photos: number): Promise<Float32Array>;
  /** @param pixels size x size x 3 */
  answer(pixels: Uint8Array): Promise<PhotoAnswer>;
  /** Its graph, for engines in other threads; a model on classical features has none. */
  graph?: Uint8Array;
  close(): Promise<void>;
}

/**
 * Loads a model from the object store, digests checked, and runs it once so that the first caller does not pay.
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
    const record = await readModel(objects, name, version);
    const { engine, graph } = await openEngineOf(objects, record, options);
    const model: ServedModel = {
      record,
      engine,
      sizeBytes: Object.values(record.files).reduce((sum, file) => sum + file.sizeBytes, 0),
      classify: (pixels, photos) => classifyPixels(engine, record.classes, pixels, photos),
      answer: (pixels) => answerPhoto(engine, record.classes, pixels),
      ...(graph && { graph }),
      close: () => engine.close(),
    };
    await model.classify(new Uint8Array(engine.inputSize * engine.inputSize * 3), 1);
    return model;
  } catch (thrown) {
    const reason = toDandelionError(thrown).message;
    throw new DandelionError('model-broken', `Model ${name} ${version} cannot be loaded: ${reason}`, {
      cause: thrown,
    });
  }
}

async function openEngineOf(
  objects: ObjectStore,
  record: ModelRecord,
  options: EngineOptions,
): Promise<{ engine: Engine; graph?: Uint8Array }> {
  if (GRAPH_FILE in record.files) {
    const { bytes, intact } = await fetchModelFile(objects, record, GRAPH_FILE);
    const [engine, check] = await Promise.allSettled([openEngine(bytes, options), intact]);
    // A damaged file is damaged first, whatever the engine made of it.
    if (check.status === 'rejected') {
      if (engine.status === 'fulfilled') await engine.value.close();
      throw check.reason;
    }
    if (engine.status === 'rejected') throw engine.reason;
    return { engine: engine.value, graph: bytes };
  }
  return { engine: openClassicalEngine(parseHead(await readModelFile(objects, record, 'head.bin'))) };
}
