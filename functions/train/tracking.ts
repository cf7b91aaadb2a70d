import type { Logger } from 'pino';
import { type ModelRecord, readModelFile } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { Metric, TrackedModel, TrackedRun } from '../../shared/stores/tracking.ts';
import { graphNames } from '../../shared/vision/graph.ts';
import type { TrainedHead } from '../../shared/vision/head.ts';

/** What a run is about and how the training went: settings, dataset, loss by iteration, cross-validation. */
export async function logTraining(
  run: TrackedRun,
  model: Omit<ModelRecord, 'files'>,
  head: TrainedHead,
): Promise<void> {
  const { dataset, extractor, training } = model;
  const { regularisation, temperature, seed, backend, crossValidation, trainingMs } = training;
  await run.logParams({
    dataset: dataset.version,
    extractor: extractor.id,
    // Not their names: hundreds would be longer than a parameter may be.
    classes: model.classes.length,
    ...{ folds: head.crossValidation.folds, regularisation, temperature, seed, backend },
  });
  const { version: digest, images, classes, splits } = dataset;
  await run.logDataset({ name: model.name, digest, images, classes, splits });
  const compared = head.crossValidation.table.flatMap(({ accuracy, logLoss }, step) => [
    { key: 'cv/compared/accuracy', value: accuracy, step },
    { key: 'cv/compared/log_loss', value: logLoss, step },
  ]);
  await run.logMetrics([
    // Those of a training that was streamed are there already, but for the last.
    ...head.history.map(({ step, loss }) => ({ key: 'train/loss', value: loss, step })),
    ...compared,
    single('train/duration_ms', trainingMs),
    single('cv/accuracy', crossValidation.accuracy),
    single('cv/log_loss', crossValidation.logLoss),
  ]);
}

export interface MetricStream {
  push(metric: Metric): void;
  /** Logs what is left. @throws what the tracker throws */
  flush(): Promise<void>;
  /** Logs nothing more by itself. */
  stop(): void;
}

const STREAM_PERIOD_MS = 1000;

/**
 * Logs metrics of a training while it goes on, those of a second together. What the tracker does not take is kept and
 * tried again with the next: a tracker that is away must not end a training that goes well.
 */
export function streamMetrics(run: TrackedRun, log: Logger, periodMs = STREAM_PERIOD_MS): MetricStream {
  let waiting: Metric[] = [];
  let sending = Promise.resolve();
  const send = async () => {
    const batch = waiting;
    waiting = [];
    if (batch.length === 0) return;
    await run.logMetrics(batch).catch((error: unknown) => {
      waiting = [...batch, ...waiting];
      throw error;
    });
  };
  const timer = setInterval(() => {
    sending = sending.then(send).catch((error: unknown) => {
      log.warn({ err: error }, 'the tracker took no metrics; they are kept for the next try');
    });
  }, periodMs);
  return {
    push: (metric) => void waiting.push(metric),
    async flush() {
      await sending;
      await send();
    },
    stop: () => clearInterval(timer),
  };
}

/** The model as it lies in the object store, with what others need to load it, its card and its validation. */
export async function logStoredModel(
  run: TrackedRun,
  objects: ObjectStore,
  record: ModelRecord,
): Promise<void> {
  const files: Record<string, Uint8Array> = {};
  for (const file of Object.keys(record.files)) files[file] = await readModelFile(objects, record, file);
  const { files: _, ...facts } = record;
  files['model.json'] = Buffer.from(`${JSON.stringify(facts, null, 2)}\n`);
  await run.logModel({ ...describeModel(record), files });
  const { accuracy, rocAuc, ece } = record.metrics;
  await run.logMetrics([
    single('validation/accuracy', accuracy),
    single('validation/roc_auc', rocAuc),
    single('validation/ece', ece),
  ]);
  const card = files['MODEL_CARD.md'];
  if (card !== undefined) await run.logArtifact('MODEL_CARD.md', card);
}

function describeModel(record: ModelRecord): Omit<TrackedModel, 'files'> {
  const { name, version, classes, extractor, preprocessing, training } = record;
  const { size } = preprocessing;
  const graph = 'serving.onnx';
  const isGraph = graph in record.files;
  const image = { name: graphNames.image, dtype: 'uint8' as const, shape: [-1, size, size, 3] };
  const features = { name: graphNames.features, dtype: 'float32' as const, shape: [-1, extractor.dimension] };
  return {
    name,
    version,
    signature: {
      inputs: [isGraph ? image : features],
      outputs: [{ name: graphNames.probabilities, dtype: 'float32', shape: [-1, classes.length] }],
    },
    flavors: isGraph
      ? {
          onnx: { data: graph, providers: ['CPUExecutionProvider'] },
          python_function: { loader_module: 'mlflow.onnx', data: graph },
        }
      : // Classical features have no graph: the head alone is of no use to MLflow's clients.
        { dandelion: { data: 'head.bin', extractor: extractor.id } },
    params: { dataset: record.dataset.version, extractor: extractor.id, seed: training.seed },
  };
}

function single(key: string, value: number): Metric {
  return { key, value, step: 0 };
}
