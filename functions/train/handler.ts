import { readConfig } from '../../shared/config.ts';
import { type EventData, modelVersionOf, parseEventData } from '../../shared/events.ts';
import { runJob, workerBeside } from '../../shared/function/compute.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { type ModelRecord, saveModel } from '../../shared/stores/models.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import { openTracker, type Tracker } from '../../shared/stores/tracking.ts';
import { serialiseHead, type TrainedHead } from '../../shared/vision/head.ts';
import { modelCard } from './card.ts';
import { type TrainSettings, trainSettings } from './config.ts';
import type { TrainJobs } from './worker.ts';

export const durable = true;

let settings: TrainSettings;
let objects: ObjectStore;
let tracker: Tracker;

export async function init({ env }: InitContext): Promise<void> {
  settings = readConfig(trainSettings, env);
  objects = openObjects(settings);
  tracker = openTracker(settings);
}

/** Stored features become a model: trained, measured on the validation split, logged, written to the object store. */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  const stored = parseEventData(event.cloudEvent, 'dev.dandelion.features.stored.v1');
  const { model: name, dataset } = stored;
  const version = modelVersionOf(event.cloudEvent?.source ?? '', event.cloudEvent?.id ?? '');
  const runId = `${name}-${version}`;
  await tracker.startRun({
    experiment: name,
    runId,
    runName: version,
    tags: { 'dandelion.dataset': dataset.version, 'dandelion.extractor': stored.extractor.id },
  });
  try {
    const record = await trainModel(stored, { version, runId }, context);
    await tracker.endRun(runId, 'FINISHED');
    await tracker.setAlias(name, 'candidate', { version, runId });
    const { trainingMs, backend } = record.training;
    return context.result(
      'dev.dandelion.model.trained.v1',
      { model: { name, version }, dataset, runId, trainingMs, engine: backend, metrics: record.metrics },
      version,
    );
  } catch (error) {
    await tracker.endRun(runId, context.signal.aborted ? 'KILLED' : 'FAILED');
    throw error;
  }
}

async function trainModel(
  stored: EventData<'dev.dandelion.features.stored.v1'>,
  { version, runId }: { version: string; runId: string },
  context: FunctionContext,
): Promise<ModelRecord> {
  const { model: name, dataset, extractor, seed } = stored;
  const { head, trainingMs, metrics, serving } = await runJob<TrainJobs, 'train'>(
    workerBeside(import.meta.url),
    'train',
    { settings, stored },
    context,
  );
  const { crossValidation, regularisation, temperature, backend } = head;
  const draft = {
    schemaVersion: 1 as const,
    name,
    version,
    createdAt: new Date().toISOString(),
    classes: head.classes,
    dataset,
    extractor: { id: extractor.id, dimension: extractor.dimension, digest: serving?.backboneDigest ?? null },
    preprocessing: { size: extractor.inputSize, resize: 'cover' as const, colour: 'rgb' as const },
    training: { runId, seed, backend, regularisation, temperature, crossValidation, trainingMs },
    metrics,
    productVersion: process.env.PRODUCT_VERSION ?? 'source',
    gitCommit: process.env.GIT_COMMIT || null,
  };
  const card = Buffer.from(modelCard(draft));
  await logRun(runId, draft, head, card);
  return saveModel(objects, draft, {
    'head.bin': serialiseHead(head),
    'MODEL_CARD.md': card,
    ...(serving === undefined ? {} : { 'serving.onnx': serving.graph }),
  });
}

async function logRun(
  runId: string,
  model: Omit<ModelRecord, 'files'>,
  head: TrainedHead,
  card: Buffer,
): Promise<void> {
  const { regularisation, temperature, seed, backend, crossValidation, trainingMs } = model.training;
  await tracker.logParams(runId, {
    dataset: model.dataset.version,
    extractor: model.extractor.id,
    classes: model.classes.join(','),
    regularisation,
    temperature,
    seed,
    backend,
  });
  await tracker.logMetrics(runId, [
    ...head.history.map(({ step, loss }) => ({ key: 'train/loss', value: loss, step })),
    { key: 'cv/accuracy', value: crossValidation.accuracy, step: 0 },
    { key: 'cv/log_loss', value: crossValidation.logLoss, step: 0 },
    { key: 'validation/accuracy', value: model.metrics.accuracy, step: 0 },
    { key: 'validation/roc_auc', value: model.metrics.rocAuc, step: 0 },
    { key: 'validation/ece', value: model.metrics.ece, step: 0 },
    { key: 'train/duration_ms', value: trainingMs, step: 0 },
  ]);
  await tracker.logArtifact(runId, 'MODEL_CARD.md', card);
}
