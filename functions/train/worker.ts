import type { ObjectSettings, StoreSettings } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import type { EventData, MetricsSummary } from '../../shared/events.ts';
import { type JobTools, serveJobs } from '../../shared/function/compute-worker.ts';
import { closeDatabases, openDatabase } from '../../shared/stores/database.ts';
import { type FeatureMatrix, readFeatures } from '../../shared/stores/features.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { trainHead } from '../../shared/vision/classifier.ts';
import { applyHead, type TrainedHead } from '../../shared/vision/head.ts';
import { evaluateClassifier } from '../../shared/vision/metrics.ts';
import { buildServingGraph, type ServingGraph } from './serving-graph.ts';

export interface TrainingRequest {
  settings: ObjectSettings & Pick<StoreSettings, 'DATABASE_URL'>;
  stored: EventData<'dev.dandelion.features.stored.v1'>;
}

export interface Training {
  head: TrainedHead;
  /** Time the head alone took. */
  trainingMs: number;
  /** On the validation split. */
  metrics: MetricsSummary;
  /** Undefined for features that no graph makes. */
  serving: ServingGraph | undefined;
}

const jobs = {
  /**
   * Trains on the features of a dataset version. They are read here, not handed over: turning rows into matrices
   * would hold the main thread up.
   *
   * @throws DandelionError what `readFeatures`, `trainHead` and `buildServingGraph` throw
   */
  async train({ settings, stored }: TrainingRequest, tools: JobTools): Promise<Training> {
    const classes = Object.keys(stored.dataset.classes).sort();
    const [training, validation] = await readSplits(settings.DATABASE_URL, stored);
    const started = performance.now();
    const head = await trainHead(
      {
        features: training.features,
        flippedFeatures: training.flippedFeatures,
        labels: labelIndices(training, classes),
        groups: training.groups,
        dimension: stored.extractor.dimension,
        classes,
        seed: stored.seed,
      },
      { signal: tools.signal, onProgress: (done, total) => tools.progress(done, total, 'training the head') },
    );
    const trainingMs = performance.now() - started;

    const probabilities = applyHead(head, validation.features, validation.labels.length);
    const labels = labelIndices(validation, classes);
    const { summary } = evaluateClassifier(probabilities, labels, classes, { seed: stored.seed });
    const serving = await buildServingGraph(openObjects(settings), stored.extractor.id, head);
    return { head, trainingMs, metrics: summary, serving };
  },
};
export type TrainJobs = typeof jobs;

async function readSplits(
  databaseUrl: string,
  { model, dataset: { version }, extractor }: TrainingRequest['stored'],
): Promise<[FeatureMatrix, FeatureMatrix]> {
  const db = await openDatabase(databaseUrl, { maxConnections: 2 });
  try {
    const split = (name: 'train' | 'validation') =>
      readFeatures(db, { model, version, split: name }, extractor);
    return await Promise.all([split('train'), split('validation')]);
  } finally {
    await closeDatabases();
  }
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

serveJobs(jobs);
