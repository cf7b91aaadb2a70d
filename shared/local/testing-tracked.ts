import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { MlflowClient } from '../stores/mlflow-client.ts';

/** What the tracking store has of a model's training: every count is 1 where each thing was done once. */
export interface Tracked {
  runs: number;
  status: string;
  /** Every value of every metric, repeats included. */
  points: { key: string; step: number }[];
  registeredVersions: number;
  candidate: string | undefined;
  champion: string | undefined;
}

const trackedRun = z.object({ status: z.string() });
const trackedMetric = z.object({ key: z.string(), step: z.number() });
const registry = z.object({
  versions: z.array(z.object({ version: z.string() })),
  aliases: z.object({ candidate: z.string(), champion: z.string() }),
});

/** Reads the folder that stands in for MLflow. */
export async function readTrackedFolder(folder: string, model: string, version: string): Promise<Tracked> {
  const readText = (...path: string[]) => readFile(join(folder, ...path), 'utf8');
  const runs = (await readdir(join(folder, 'runs'))).filter((run) => run.startsWith(`${model}-v`));
  const { status } = trackedRun.parse(JSON.parse(await readText('runs', `${model}-${version}`, 'run.json')));
  const lines = (await readText('runs', `${model}-${version}`, 'metrics.jsonl')).trim().split('\n');
  const registered = registry.parse(JSON.parse(await readText('registered-models', `${model}.json`)));
  return {
    runs: runs.length,
    status,
    points: lines.map((line) => trackedMetric.parse(JSON.parse(line))),
    registeredVersions: registered.versions.length,
    ...registered.aliases,
  };
}

/** Asks a server. */
export async function readTrackedServer(
  client: MlflowClient,
  model: string,
  version: string,
): Promise<Tracked> {
  const experiment = (await client.findExperiment(model))?.experiment_id ?? '';
  const runs = await client.searchRuns({ experiment, filter: '', limit: 100 });
  const [run] = runs;
  const keys = run?.data.metrics.map(({ key }) => key) ?? [];
  const points = await Promise.all(keys.map((key) => client.metricHistory(run?.info.run_id ?? '', key)));
  const versionOf = async (alias: string) =>
    (await client.findAlias(model, alias))?.tags['dandelion.version'];
  return {
    runs: runs.length,
    status: run?.info.status ?? 'missing',
    points: points.flat(),
    registeredVersions: (await client.findVersions(model, 'dandelion.version', version)).length,
    candidate: await versionOf('candidate'),
    champion: await versionOf('champion'),
  };
}
