import { readConfig } from '../../shared/config.ts';
import { type EventData, modelVersionOf, parseEventData } from '../../shared/events.ts';
import { runJob, workerBeside } from '../../shared/function/compute.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { writeReference } from '../../shared/stores/drift-reference.ts';
import { type ModelRecord, saveModel } from '../../shared/stores/models.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import { openTracker, type TrackedRun, type Tracker } from '../../shared/stores/tracking.ts';
import { serialiseHead } from '../../shared/vision/head.ts';
import { modelCard } from './card.ts';
import { type TrainSettings, trainSettings } from './config.ts';
import { championThatKnows } from './known.ts';
import { logStoredModel, logTraining, streamMetrics } from './tracking.ts';
import type { Training, TrainJobs } from './worker.ts';

export const durable = true;

const gitCommit = process.env.GIT_COMMIT || null;

let settings: TrainSettings;
let objects: ObjectStore;
let tracker: Tracker;

export async function init({ env }: InitContext): Promise<void> {
  settings = readConfig(trainSettings, env);
  objects = openObjects(settings);
  tracker = openTracker(settings);
}

/**
 * Stored features become a model: trained, measured on the validation split, logged, written to the object store; or,
 * where the request leaves it to us (`force: false`) and nothing is new, they do not.
 */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  const stored = parseEventData(event.cloudEvent, 'dev.dandelion.features.stored.v1');
  const { model: name, dataset, canary } = stored;
  const known = stored.force === false ? await championThatKnows(objects, stored) : undefined;
  if (known !== undefined) {
    const reason = `${known.version} serves and learnt from this very dataset, ${dataset.version}, with seed ${stored.seed}`;
    context.log.info({ ml: { model: known } }, `nothing to train: ${reason}`);
    return context.result(
      'dev.dandelion.training.skipped.v1',
      { model: known, dataset, reason },
      known.version,
    );
  }
  const version = modelVersionOf(event.cloudEvent?.source ?? '', event.cloudEvent?.id ?? '');
  const runId = `${name}-${version}`;
  const run = await tracker.startRun({
    experiment: name,
    runId,
    runName: version,
    tags: {
      'dandelion.version': version,
      'dandelion.dataset': dataset.version,
      'dandelion.extractor': stored.extractor.id,
      ...(gitCommit && { 'mlflow.source.git.commit': gitCommit }),
    },
  });
  context.log.info({ 'url.full': run.url }, 'tracked run opened');
  try {
    const record = await trainModel(stored, { version, runId }, run, context);
    await run.end('FINISHED');
    await tracker.setAlias(name, 'candidate', { version, runId });
    const { trainingMs, backend } = record.training;
    return context.result(
      'dev.dandelion.model.trained.v1',
      {
        ...{ model: { name, version }, dataset, runId, runUrl: run.url },
        ...{ trainingMs, engine: backend, metrics: record.metrics, canary },
      },
      version,
    );
  } catch (error) {
    // The tracking store may be what failed; what failed first is what counts.
    await run.end(context.signal.aborted ? 'KILLED' : 'FAILED').catch((fault: unknown) => {
      context.log.warn({ err: fault }, 'the tracked run could not be ended');
    });
    throw error;
  }
}

/** The training itself, in a thread of its own; what it measures reaches the tracked run as it comes. */
async function train(
  stored: EventData<'dev.dandelion.features.stored.v1'>,
  run: TrackedRun,
  context: FunctionContext,
): Promise<Training> {
  const stream = streamMetrics(run, context.log);
  const worker = workerBeside(import.meta.url);
  const input = { settings, stored };
  try {
    const options = { onMetric: stream.push };
    const training = await runJob<TrainJobs, 'train'>(worker, 'train', input, context, options);
    await stream.flush();
    return training;
  } finally {
    stream.stop();
  }
}

async function trainModel(
  stored: EventData<'dev.dandelion.features.stored.v1'>,
  { version, runId }: { version: string; runId: string },
  run: TrackedRun,
  context: FunctionContext,
): Promise<ModelRecord> {
  const { model: name, dataset, extractor, seed } = stored;
  const { head, trainingMs, metrics, unknownThreshold, serving, reference } = await train(
    stored,
    run,
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
    unknown: { threshold: unknownThreshold, acceptance: settings.UNKNOWN_ACCEPTANCE },
    productVersion: process.env.PRODUCT_VERSION ?? 'source',
    gitCommit,
  };
  await logTraining(run, draft, head);
  await writeReference(objects, name, { ...reference, version });
  const record = await saveModel(objects, draft, {
    'head.bin': serialiseHead(head),
    'MODEL_CARD.md': Buffer.from(modelCard(draft)),
    ...(serving === undefined ? {} : { 'serving.onnx': serving.graph }),
  });
  await logStoredModel(run, objects, record);
  return record;
}
