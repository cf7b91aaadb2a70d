import type { ObjectSettings } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import type { EventData, MetricsSummary } from '../../shared/events.ts';
import { type JobTools, serveJobs } from '../../shared/function/compute-worker.ts';
import { closeDatabases, type Database, openDatabase } from '../../shared/stores/database.ts';
import type { DriftReference } from '../../shared/stores/drift-reference.ts';
import { type FeatureMatrix, readFeatures } from '../../shared/stores/features.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { trainHead } from '../../shared/vision/classifier.ts';
import { learnFamiliarity } from '../../shared/vision/familiarity.ts';
import { applyHead, type TrainedHead } from '../../shared/vision/head.ts';
import { evaluateClassifier } from '../../shared/vision/metrics.ts';
import type { TrainSettings } from './config.ts';
import { describeReference } from './reference.ts';
import { buildServingGraph, type ServingGraph } from './serving-graph.ts';

export interface TrainingRequest {
  settings: ObjectSettings & Pick<TrainSettings, 'DATABASE_URL' | 'UNKNOWN_ACCEPTANCE'>;
  stored: EventData<'dev.dandelion.features.stored.v1'>;
}

export interface Training {
  head: TrainedHead;
  /** Time the head alone took. */
  trainingMs: number;
  /** On the validation split. */
  metrics: MetricsSummary;
  /** Below which familiarity a photo is of none of the classes. */
  unknownThreshold: number;
  /** Undefined for features that no graph makes. */
  serving: ServingGraph | undefined;
  reference: Omit<DriftReference, 'version'>;
}

const jobs = {
  /**
   * Trains on the features of a dataset version. They are read here, not handed over: turning rows into matrices
   * would hold the main thread up.
   *
   * @throws DandelionError what `readFeatures`, `trainHead` and `buildServingGraph` throw
   */
  async train({ settings, stored }: TrainingRequest, tools: JobTools): Promise<Training> {
    const db = await openDatabase(settings.DATABASE_URL, { maxConnections: 2 });
    try {
      return await trainOn(db, { settings, stored }, tools);
    } finally {
      await closeDatabases();
    }
  },
};
export type TrainJobs = typeof jobs;

async function trainOn(
  db: Database,
  { settings, stored }: TrainingRequest,
  tools: JobTools,
): Promise<Training> {
  const classes = Object.keys(stored.dataset.classes).sort();
  const [training, validation] = await readSplits(db, stored);
  const { dimension } = stored.extractor;
  const own = {
    features: training.features,
    labels: labelIndices(training, classes),
    groups: training.groups,
  };
  let heldOut: Float32Array = new Float32Array();
  const started = performance.now();
  const trained = await trainHead(
    { ...own, augmentedFeatures: training.augmentedFeatures, dimension, classes, seed: stored.seed },
    {
      signal: tools.signal,
      onProgress(done, total, loss) {
        tools.progress(done, total, `training the head: loss ${loss.toFixed(4)}`);
        if (done < total) tools.metric({ key: 'cv/held_out_loss', value: loss, step: done });
      },
      onIteration: (step, loss) => tools.metric({ key: 'train/loss', value: loss, step }),
      onHeldOut: (probabilities) => {
        heldOut = probabilities;
      },
    },
  );
  const trainingMs = performance.now() - started;

  const probabilities = applyHead(trained, validation.features, validation.labels.length);
  const labels = labelIndices(validation, classes);
  const { summary } = evaluateClassifier(probabilities, labels, classes, { seed: stored.seed });
  const {
    directions,
    threshold,
    heldOut: familiarity,
  } = learnFamiliarity(
    own,
    { features: validation.features, labels },
    { classes: classes.length, dimension },
    settings.UNKNOWN_ACCEPTANCE,
  );
  const head = { ...trained, directions };
  const serving = await buildServingGraph(openObjects(settings), stored.extractor.id, head);
  const reference = await describeReference(db, stored, classes, [
    { matrix: training, probabilities: heldOut, familiarity: familiarity.training },
    { matrix: validation, probabilities, familiarity: familiarity.validation },
  ]);
  return { head, trainingMs, metrics: summary, unknownThreshold: threshold, serving, reference };
}

async function readSplits(
  db: Database,
  { model, dataset: { version }, extractor }: TrainingRequest['stored'],
): Promise<[FeatureMatrix, FeatureMatrix]> {
  const split = (name: 'train' | 'validation') =>
    readFeatures(db, { model, version, split: name }, extractor);
  return Promise.all([split('train'), split('validation')]);
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
