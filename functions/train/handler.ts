import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import { type EventData, modelVersionOf, parseEventData } from '../../shared/events.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { type Database, openDatabase } from '../../shared/stores/database.ts';
import { type FeatureMatrix, readFeatures } from '../../shared/stores/features.ts';
import { type ModelRecord, saveModel } from '../../shared/stores/models.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import { openTracker, type Tracker } from '../../shared/stores/tracking.ts';
import { applyHead, serialiseHead, type TrainedHead, trainHead } from '../../shared/vision/classifier.ts';
import { evaluateClassifier } from '../../shared/vision/metrics.ts';
import { modelCard } from './card.ts';
import { trainSettings } from './config.ts';
import { buildServingGraph } from './serving-graph.ts';

export const durable = true;

let db: Database;
let objects: ObjectStore;
let tracker: Tracker;

export async function init({ env }: InitContext): Promise<void> {
  const settings = readConfig(trainSettings, env);
  db = await openDatabase(settings.DATABASE_URL);
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
  const classes = Object.keys(dataset.classes).sort();
  const split = (split: 'train' | 'validation') =>
    readFeatures(db, { model: name, version: dataset.version, split }, extractor);
  const [training, validation] = await Promise.all([split('train'), split('validation')]);

  const started = performance.now();
  const head = await trainHead(
    {
      features: training.features,
      flippedFeatures: training.flippedFeatures,
      labels: labelIndices(training, classes),
      groups: training.groups,
      dimension: extractor.dimension,
      classes,
      seed,
    },
    {
      signal: context.signal,
      onProgress: (done, total) => context.progress(done, total, 'training the head'),
    },
  );
  const trainingMs = performance.now() - started;

  const probabilities = applyHead(head, validation.features, validation.labels.length);
  const metrics = evaluateClassifier(probabilities, labelIndices(validation, classes), classes, {
    seed,
  }).summary;
  const serving = await buildServingGraph(objects, extractor.id, head);
  const { crossValidation, regularisation, temperature, backend } = head;
  const draft = {
    schemaVersion: 1 as const,
    name,
    version,
    createdAt: new Date().toISOString(),
    classes,
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

/** @throws DandelionError `bad-data` when a photo's label is none of the dataset's classes */
function labelIndices(matrix: FeatureMatrix, classes: readonly string[]): Int32Array {
  return Int32Array.from(matrix.labels, (label) => {
    const index = classes.indexOf(label);
    if (index < 0)
      throw new DandelionError('bad-data', `The label "${label}" is none of ${classes.join(', ')}.`);
    return index;
  });
}
