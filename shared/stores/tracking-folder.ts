import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';
import { lockFile } from './file-lock.ts';
import type { Content } from './mlflow-http.ts';
import { mlmodelFile } from './mlmodel.ts';
import type { Metric, RunName, TrackedRun, Tracker } from './tracking.ts';

const runFile = z.object({
  runId: z.string(),
  runName: z.string(),
  experiment: z.string(),
  status: z.enum(['RUNNING', 'FINISHED', 'FAILED', 'KILLED']),
  startTime: z.string(),
  endTime: z.string().nullable(),
  tags: z.record(z.string(), z.string()),
  params: z.record(z.string(), z.string()),
  dataset: z
    .object({
      name: z.string(),
      digest: z.string(),
      images: z.number(),
      classes: z.record(z.string(), z.number()),
      splits: z.record(z.string(), z.number()),
    })
    .optional(),
});
type RunFile = z.infer<typeof runFile>;

const registryFile = z.object({
  name: z.string(),
  versions: z.array(z.object({ version: z.string(), runId: z.string(), createdAt: z.string() })),
  aliases: z.record(z.string(), z.string()),
});

/**
 * Opens a folder as tracking store: `runs/{run}/` with `run.json`, `metrics.jsonl`, `artifacts/` and `model/`, and
 * `registered-models/{model}.json`.
 *
 * Its calls throw DandelionError `store-unavailable` when the file system fails them, and `bad-data` for a run id that is
 * none.
 */
export function openFolderTracker(root: string): Tracker {
  const runs = join(root, 'runs');
  const folderOf = (runId: string) => join(runs, checkedRunId(runId));
  const registryOf = (model: string) => join(root, 'registered-models', `${model}.json`);
  const named = <Result>(work: () => Promise<Result>) => namingStore(root, work);
  /** One at a time, over all processes: what is read, changed and written would else lose what others wrote between. */
  const alone = <Result>(what: string, work: () => Promise<Result>) =>
    named(async () => {
      const release = await lockFile(join(root, '.locks', what));
      return work().finally(release);
    });

  return {
    startRun: (name) =>
      named(async () => {
        await rm(folderOf(name.runId), { recursive: true, force: true });
        return createRun(name);
      }),

    resumeRun: (name) =>
      named(async () => {
        const found = await readJson(join(folderOf(name.runId), 'run.json'), runFile);
        return found === undefined ? createRun(name) : trackedRun(name.runId);
      }),

    searchRuns: (experiment, { tags = {}, by, limit = 100 }) =>
      named(async () => {
        const names = await readdir(runs).catch(() => []);
        const summaries = await Promise.all(names.map((name) => summarise(join(runs, name))));
        const found = summaries.filter(
          (run) =>
            run?.experiment === experiment &&
            Object.entries(tags).every(([key, value]) => run.tags[key] === value),
        );
        const rank = (run: (typeof summaries)[number]) => run?.metrics[by ?? ''] ?? Number.NEGATIVE_INFINITY;
        const ordered = by === undefined ? found : found.sort((a, b) => rank(b) - rank(a));
        return ordered.slice(0, limit).flatMap((run) => run ?? []);
      }),

    setAlias: (model, alias, { version, runId }) =>
      alone(`model-${model}`, async () => {
        const path = registryOf(model);
        const known = (await readJson(path, registryFile)) ?? { name: model, versions: [], aliases: {} };
        const isNew = !known.versions.some((entry) => entry.version === version);
        const versions = isNew
          ? [...known.versions, { version, runId, createdAt: new Date().toISOString() }]
          : known.versions;
        await writeJson(path, { ...known, versions, aliases: { ...known.aliases, [alias]: version } });
      }),

    readAlias: (model, alias) =>
      named(async () => (await readJson(registryOf(model), registryFile))?.aliases[alias]),
  };

  async function createRun(name: RunName): Promise<TrackedRun> {
    const startTime = new Date().toISOString();
    const run: RunFile = { ...name, status: 'RUNNING', startTime, endTime: null, params: {} };
    await writeJson(join(folderOf(name.runId), 'run.json'), run);
    return trackedRun(name.runId);
  }

  function trackedRun(runId: string): TrackedRun {
    const folder = folderOf(runId);
    const runPath = join(folder, 'run.json');
    const change = (by: (run: RunFile) => Partial<RunFile>) =>
      alone(`run-${runId}`, async () => {
        const run = runFile.parse(JSON.parse(await readFile(runPath, 'utf8')));
        await writeJson(runPath, { ...run, ...by(run) });
      });
    return {
      url: pathToFileURL(folder).href,
      logParams: (params) => change((run) => ({ params: joinParams(run, params) })),
      logMetrics: (metrics) => alone(`run-${runId}`, () => addPoints(join(folder, 'metrics.jsonl'), metrics)),
      setTags: (tags) => change((run) => ({ tags: { ...run.tags, ...tags } })),
      logDataset: (dataset) => change(() => ({ dataset })),
      logArtifact: (path, content) => named(() => writeContent(join(folder, 'artifacts', path), content)),
      readArtifact: (path) => named(() => readFile(join(folder, 'artifacts', path))),
      metricHistory: (key) =>
        named(async () => {
          const points = await readPoints(join(folder, 'metrics.jsonl'));
          return points.filter((point) => point.key === key).map(({ value, step }) => ({ key, value, step }));
        }),
      logModel: (model) =>
        named(async () => {
          for (const [path, content] of Object.entries(model.files)) {
            await writeContent(join(folder, 'model', path), content);
          }
          const ids = { artifactPath: 'model', runId, modelId: `${model.name}-${model.version}` };
          await writeContent(join(folder, 'model/MLmodel'), mlmodelFile(model, ids));
        }),
      end: (status) => change(() => ({ status, endTime: new Date().toISOString() })),
    };
  }
}

/** Events carry it, so it may be anything; a path would lead out of the store. */
function checkedRunId(runId: string): string {
  if (/^[A-Za-z0-9][\w.-]*$/.test(runId)) return runId;
  throw new DandelionError('bad-data', `${JSON.stringify(runId)} is no id of a run.`);
}

function joinParams(run: RunFile, params: Readonly<Record<string, string | number>>): RunFile['params'] {
  for (const [key, value] of Object.entries(params)) {
    const before = run.params[key];
    if (before === undefined || before === String(value)) continue;
    const sentence = `The parameter "${key}" of run ${run.runId} is ${before} and cannot become ${value}.`;
    throw new DandelionError('store-refused', sentence);
  }
  const texts = Object.entries(params).map(([key, value]) => [key, String(value)]);
  return { ...run.params, ...Object.fromEntries(texts) };
}

async function summarise(folder: string) {
  const run = await readJson(join(folder, 'run.json'), runFile);
  if (run === undefined) return undefined;
  const last = new Map<string, Metric>();
  for (const point of await readPoints(join(folder, 'metrics.jsonl'))) {
    if (point.step >= (last.get(point.key)?.step ?? Number.NEGATIVE_INFINITY)) last.set(point.key, point);
  }
  const metrics = Object.fromEntries([...last].map(([key, { value }]) => [key, value]));
  const { runId, experiment, status, params, tags } = run;
  return { runId, experiment, status, metrics, params, tags };
}

const pointLine = z.object({ key: z.string(), value: z.number(), step: z.number(), timestamp: z.string() });
type Point = z.infer<typeof pointLine>;
const pointKey = ({ key, step }: Pick<Metric, 'key' | 'step'>) => JSON.stringify([key, step]);

async function addPoints(path: string, metrics: readonly Metric[]): Promise<void> {
  const timestamp = new Date().toISOString();
  const points = new Map<string, Point>();
  for (const point of await readPoints(path)) points.set(pointKey(point), point);
  for (const metric of metrics) {
    if (!points.has(pointKey(metric))) points.set(pointKey(metric), { ...metric, timestamp });
  }
  const lines = [...points.values()].map((point) => `${JSON.stringify(point)}\n`);
  await writeContent(path, Buffer.from(lines.join('')));
}

/** Values logged before; a line that a killed process left unfinished is none. */
async function readPoints(path: string): Promise<Point[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      return [pointLine.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

/** @returns undefined where there is no such file */
async function readJson<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (hasErrorCode(error, 'ENOENT')) return undefined;
    throw error;
  });
  return text === undefined ? undefined : schema.parse(JSON.parse(text));
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeContent(path, Buffer.from(`${JSON.stringify(value, null, 2)}\n`));
}

/** Whole or not at all. */
async function writeContent(path: string, content: Content): Promise<void> {
  const draft = `${path}.${randomUUID()}.draft`;
  try {
    await mkdir(dirname(path), { recursive: true });
    if (content instanceof Uint8Array) await writeFile(draft, content);
    else await pipeline(content.open(), createWriteStream(draft));
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw error;
  }
}

/** What the file system fails names the store. */
async function namingStore<Result>(root: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    const sentence = `The tracking store at ${root} failed: ${cause.message}.`;
    throw new DandelionError('store-unavailable', sentence, { cause });
  }
}
