import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';

export type RunStatus = 'RUNNING' | 'FINISHED' | 'FAILED' | 'KILLED';

/** One value of a metric; `step` orders the history. */
export interface Metric {
  key: string;
  value: number;
  step: number;
}

/**
 * Experiments, runs and the model registry, in MLflow's words
 * (https://mlflow.org/docs/latest/api_reference/rest-api.html).
 */
export interface Tracker {
  /** Opens a run, or opens it anew when an earlier attempt with this id was cut off. */
  startRun(run: {
    experiment: string;
    runId: string;
    runName: string;
    tags: Record<string, string>;
  }): Promise<void>;
  logParams(runId: string, params: Record<string, string | number>): Promise<void>;
  /** The value of a key and step is kept once, the last one: a step that is worked again doubles nothing. */
  logMetrics(runId: string, metrics: readonly Metric[]): Promise<void>;
  logArtifact(runId: string, path: string, bytes: Uint8Array): Promise<void>;
  endRun(runId: string, status: Exclude<RunStatus, 'RUNNING'>): Promise<void>;
  /** Registers a model version once and points an alias at it. */
  setAlias(
    model: string,
    alias: 'candidate' | 'champion',
    version: { version: string; runId: string },
  ): Promise<void>;
}

const runFile = z.object({
  runId: z.string(),
  runName: z.string(),
  experiment: z.string(),
  status: z.enum(['RUNNING', 'FINISHED', 'FAILED', 'KILLED']),
  startTime: z.string(),
  endTime: z.string().nullable(),
  tags: z.record(z.string(), z.string()),
  params: z.record(z.string(), z.string()),
});
type RunFile = z.infer<typeof runFile>;

const registryFile = z.object({
  name: z.string(),
  versions: z.array(z.object({ version: z.string(), runId: z.string(), createdAt: z.string() })),
  aliases: z.record(z.string(), z.string()),
});

/**
 * Opens the tracking store that the settings name: a folder with one folder a run, readable by people. Its calls throw
 * DandelionError `store-unavailable` when the folder fails them.
 */
export function openTracker(settings: { TRACKING_DIR: string }): Tracker {
  const root = resolve(settings.TRACKING_DIR);
  return naming(root, openFolder(root));
}

function openFolder(root: string): Tracker {
  const runFolder = (runId: string) => join(root, 'runs', runId);
  const readRun = async (runId: string): Promise<RunFile> =>
    runFile.parse(JSON.parse(await readFile(join(runFolder(runId), 'run.json'), 'utf8')));
  const writeRun = (run: RunFile) => writeJson(join(runFolder(run.runId), 'run.json'), run);

  return {
    async startRun({ experiment, runId, runName, tags }) {
      await rm(runFolder(runId), { recursive: true, force: true });
      const startTime = new Date().toISOString();
      await writeRun({
        runId,
        runName,
        experiment,
        status: 'RUNNING',
        startTime,
        endTime: null,
        tags,
        params: {},
      });
    },

    async logParams(runId, params) {
      const run = await readRun(runId);
      const texts = Object.entries(params).map(([key, value]) => [key, String(value)] as const);
      await writeRun({ ...run, params: { ...run.params, ...Object.fromEntries(texts) } });
    },

    async logMetrics(runId, metrics) {
      const path = join(runFolder(runId), 'metrics.jsonl');
      const timestamp = new Date().toISOString();
      const points = new Map((await readPoints(path)).map((point) => [pointKey(point), point]));
      for (const metric of metrics) points.set(pointKey(metric), { ...metric, timestamp });
      const lines = [...points.values()].map((point) => `${JSON.stringify(point)}\n`);
      await writeText(path, lines.join(''));
    },

    async logArtifact(runId, path, bytes) {
      await writeText(join(runFolder(runId), 'artifacts', path), bytes);
    },

    async endRun(runId, status) {
      await writeRun({ ...(await readRun(runId)), status, endTime: new Date().toISOString() });
    },

    async setAlias(model, alias, { version, runId }) {
      const path = join(root, 'registered-models', `${model}.json`);
      const text = await readFile(path, 'utf8').catch(() => undefined);
      const known =
        text === undefined
          ? { name: model, versions: [], aliases: {} }
          : registryFile.parse(JSON.parse(text));
      const isNew = !known.versions.some((entry) => entry.version === version);
      const versions = isNew
        ? [...known.versions, { version, runId, createdAt: new Date().toISOString() }]
        : known.versions;
      await writeJson(path, { ...known, versions, aliases: { ...known.aliases, [alias]: version } });
    },
  };
}

const pointLine = z.object({ key: z.string(), value: z.number(), step: z.number(), timestamp: z.string() });
const pointKey = ({ key, step }: Pick<Metric, 'key' | 'step'>) => JSON.stringify([key, step]);

/** Values logged before; a line that a killed process left unfinished is none. */
async function readPoints(path: string): Promise<z.output<typeof pointLine>[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      return [pointLine.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeText(path, `${JSON.stringify(value, null, 2)}\n`);
}

/** Whole or not at all. */
async function writeText(path: string, content: string | Uint8Array): Promise<void> {
  const draft = `${path}.${process.pid}.draft`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(draft, content);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw error;
  }
}

/** Every call names the store when the file system fails it. */
function naming(root: string, tracker: Tracker): Tracker {
  const named = async (work: Promise<void>): Promise<void> => {
    try {
      await work;
    } catch (cause) {
      if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
      const sentence = `The tracking store at ${root} failed: ${cause.message}.`;
      throw new DandelionError('store-unavailable', sentence, { cause });
    }
  };
  return {
    startRun: (run) => named(tracker.startRun(run)),
    logParams: (runId, params) => named(tracker.logParams(runId, params)),
    logMetrics: (runId, metrics) => named(tracker.logMetrics(runId, metrics)),
    logArtifact: (runId, path, bytes) => named(tracker.logArtifact(runId, path, bytes)),
    endRun: (runId, status) => named(tracker.endRun(runId, status)),
    setAlias: (model, alias, version) => named(tracker.setAlias(model, alias, version)),
  };
}
