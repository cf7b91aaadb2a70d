import { DandelionError, toDandelionError } from '../errors.ts';
import { parseHead } from '../vision/classifier.ts';
import { type Engine, type EngineOptions, openClassicalEngine, openEngine } from '../vision/engine.ts';
import { type ModelRecord, readModel, readModelFile } from './models.ts';
import type { ObjectStore } from './objects.ts';

/** A model in memory, ready to answer. */
export interface ServedModel {
  record: ModelRecord;
  engine: Engine;
  sizeBytes: number;
  /** @param pixels n x size x size x 3; returns n x classes probabilities in the order of `record.classes` */
  classify(pixels: Uint8Array, photos: number): Promise<Float32Array>;
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
    const engine = await openEngineOf(objects, record, options);
    const model: ServedModel = {
      record,
      engine,
      sizeBytes: Object.values(record.files).reduce((sum, file) => sum + file.sizeBytes, 0),
      classify: (pixels, photos) => classify(engine, record, pixels, photos),
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
): Promise<Engine> {
  if ('serving.onnx' in record.files)
    return openEngine(await readModelFile(objects, record, 'serving.onnx'), options);
  return openClassicalEngine(parseHead(await readModelFile(objects, record, 'head.bin')));
}

async function classify(
  engine: Engine,
  record: ModelRecord,
  pixels: Uint8Array,
  photos: number,
): Promise<Float32Array> {
  const { probabilities } = await engine.run(pixels, photos);
  const expected = photos * record.classes.length;
  if (probabilities?.length !== expected || probabilities.some(Number.isNaN)) {
    throw new DandelionError(
      'model-broken',
      `The engine gave ${probabilities?.length ?? 'no'} probabilities where ${expected} belong.`,
    );
  }
  return probabilities;
}
