import { resolve } from 'node:path';
import type { TrackingSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import type { Content } from './mlflow-http.ts';
import { openFolderTracker } from './tracking-folder.ts';
import { openMlflowTracker } from './tracking-mlflow.ts';

export type RunStatus = 'RUNNING' | 'FINISHED' | 'FAILED' | 'KILLED';

/** A run by our own names. */
export interface RunName {
  /** The model's name. */
  experiment: string;
  /** Unique in the experiment, and the same for every attempt of a step. */
  runId: string;
  runName: string;
  tags: Record<string, string>;
}

/** One value of a metric; `step` orders the history. */
export interface Metric {
  key: string;
  value: number;
  step: number;
}

/** The dataset version that a run learns from. */
export interface DatasetInput {
  name: string;
  /** At most 36 characters. */
  digest: string;
  images: number;
  classes: Readonly<Record<string, number>>;
  splits: Readonly<Record<string, number>>;
}

/** A tensor that goes into or comes out of a model; -1 stands for the number of photos. */
export interface TensorSpec {
  name: string;
  dtype: 'uint8' | 'float32';
  shape: number[];
}

/** A model with what others need to use it. */
export interface TrackedModel {
  name: string;
  version: string;
  signature: { inputs: TensorSpec[]; outputs: TensorSpec[] };
  /** How the files are used, by the names MLflow gives to such ways. */
  flavors: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  params: Readonly<Record<string, string | number>>;
  files: Readonly<Record<string, Content>>;
}

/** What a search finds of a run. */
export interface RunSummary {
  runId: string;
  status: string;
  /** The last value of each metric. */
  metrics: Record<string, number>;
  params: Record<string, string>;
  tags: Record<string, string>;
}

/** A run that takes entries. */
export interface TrackedRun {
  /** Where people look at it. */
  url: string;
  /**
   * @throws DandelionError `store-refused` when a parameter had another value before, or is longer than 6000 characters
   */
  logParams(params: Readonly<Record<string, string | number>>): Promise<void>;
  /**
   * The first value of a key and step stands: a step that is worked again doubles nothing. Values that come after
   * the model was logged count as the model's, too.
   */
  logMetrics(metrics: readonly Metric[]): Promise<void>;
  setTags(tags: Readonly<Record<string, string>>): Promise<void>;
  logDataset(dataset: DatasetInput): Promise<void>;
  logArtifact(path: string, content: Content): Promise<void>;
  readArtifact(path: string): Promise<Uint8Array>;
  metricHistory(key: string): Promise<Metric[]>;
  /** Keeps the model's files with an `MLmodel` file that says what they are. */
  logModel(model: TrackedModel): Promise<void>;
  end(status: Exclude<RunStatus, 'RUNNING'>): Promise<void>;
}

export type Alias = 'candidate' | 'champion';

/**
 * Experiments, runs and the model registry, in MLflow's words
 * (https://mlflow.org/docs/latest/api_reference/rest-api.html).
 *
 * Every call throws DandelionError `store-unavailable` when the store fails it, `bad-config` for a wrong address or
 * wrong credentials, `store-refused` for what the store does not take.
 */
export interface Tracker {
  /** Opens a run. What an earlier attempt left under this id goes away: its entries may be half there. */
  startRun(run: RunName): Promise<TrackedRun>;
  /** The run that an earlier step made. One that this store does not have is opened empty. */
  resumeRun(run: RunName): Promise<TrackedRun>;
  /** Runs of an experiment that carry these tags, by a metric's last value, the highest first, if one is named. */
  searchRuns(
    experiment: string,
    search: { tags?: Readonly<Record<string, string>>; by?: string; limit?: number },
  ): Promise<RunSummary[]>;
  /** Registers a model version once and points an alias at it. */
  setAlias(model: string, alias: Alias, version: { version: string; runId: string }): Promise<void>;
  /** @returns our version, undefined where nobody has this alias */
  readAlias(model: string, alias: Alias): Promise<string | undefined>;
}

/**
 * Opens the tracking store that the settings name: an MLflow server, else a folder with one folder a run, readable
 * by people.
 *
 * @throws DandelionError `bad-config` when they name neither
 */
export function openTracker(settings: TrackingSettings): Tracker {
  const { MLFLOW_TRACKING_URI, TRACKING_DIR } = settings;
  if (MLFLOW_TRACKING_URI !== undefined) return openMlflowTracker({ ...settings, MLFLOW_TRACKING_URI });
  if (TRACKING_DIR !== undefined) return openFolderTracker(resolve(TRACKING_DIR));
  throw new DandelionError(
    'bad-config',
    'There is no place to track runs: set MLFLOW_TRACKING_URI to an MLflow server, or TRACKING_DIR to a folder.',
  );
}
