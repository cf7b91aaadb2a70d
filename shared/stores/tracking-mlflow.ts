import { randomBytes } from 'node:crypto';
import type { TrackingSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import type { MlflowRun, MlflowVersion } from './mlflow-answers.ts';
import { type MetricEntry, type MlflowClient, openMlflowClient, quoted } from './mlflow-client.ts';
import { mlmodelFile } from './mlmodel.ts';
import type { Metric, RunName, TrackedModel, TrackedRun, Tracker } from './tracking.ts';

/** MLflow gives runs and versions names of its own; ours travel as tags, and everything is found by them. */
const runTag = 'dandelion.run_id';
/** Tells a run whose creation was answered by silence from one of another attempt. */
const attemptTag = 'dandelion.attempt';
const versionTag = 'dandelion.version';

/**
 * Opens an MLflow server as tracking store.
 *
 * Nothing is doubled when a step is worked again: what MLflow creates is looked for before it is created, and before
 * a creation is repeated whose answer was lost; metrics carry the run's own time, since MLflow keeps a batch that
 * comes twice once only if its timestamps are the same.
 */
export function openMlflowTracker(
  settings: TrackingSettings & { MLFLOW_TRACKING_URI: string },
  options: { patienceMs?: number } = {},
): Tracker {
  const client = openMlflowClient(settings, options);
  return {
    async startRun(name) {
      const experiment = await experimentOf(client, name.experiment);
      const run = await createRun(client, experiment, name);
      // Only now: who was cut off between the two finds at least one.
      for (const left of await runsOf(client, experiment, name.runId)) {
        if (left.info.run_id !== run.info.run_id) await discardRun(client, left);
      }
      return trackedRun(client, run);
    },

    async resumeRun(name) {
      const experiment = await experimentOf(client, name.experiment);
      const [found] = await runsOf(client, experiment, name.runId);
      return trackedRun(client, found ?? (await createRun(client, experiment, name)));
    },

    async searchRuns(name, { tags = {}, by, limit = 100 }) {
      const experiment = await client.findExperiment(name);
      if (experiment === undefined) return [];
      const filter = Object.entries(tags).map(([key, value]) => `tags.\`${key}\` = ${quoted(value)}`);
      const runs = await client.searchRuns({
        experiment: experiment.experiment_id,
        filter: filter.join(' and '),
        ...(by === undefined ? {} : { order: `metrics.\`${by}\` DESC` }),
        limit,
      });
      return runs.map(({ info, data }) => ({
        runId: data.tags[runTag] ?? info.run_id,
        status: info.status,
        metrics: Object.fromEntries(data.metrics.map(({ key, value }) => [key, value])),
        params: data.params,
        tags: data.tags,
      }));
    },

    async setAlias(model, alias, { version, runId }) {
      await client.createRegisteredModel(
        model,
        `Versions that Dandelion trained; the tag ${versionTag} is its own.`,
      );
      const registered = await ensureVersion(client, { model, version, runId });
      await client.setAlias(model, alias, registered.version);
    },

    async readAlias(model, alias) {
      return (await client.findAlias(model, alias))?.tags[versionTag];
    },
  };
}

/** A page of MLflow's; without the word at the end it opens among the tools for language models. */
export function mlflowPage(server: string, path: string): string {
  return `${server}/#/${path}?workflowType=machine_learning`;
}

async function experimentOf(client: MlflowClient, name: string): Promise<string> {
  // Another process may create it in between.
  for (let round = 0; round < 2; round++) {
    const found = await client.findExperiment(name);
    if (found?.lifecycle_stage === 'deleted') {
      throw new DandelionError(
        'store-refused',
        `The experiment "${name}" of MLflow at ${client.http.url} was deleted: restore it (mlflow experiments restore --experiment-id ${found.experiment_id}) or train under another model name.`,
      );
    }
    const id = found?.experiment_id ?? (await client.createExperiment(name));
    if (id !== undefined) return id;
  }
  throw new DandelionError(
    'store-unavailable',
    `MLflow at ${client.http.url} lost the experiment "${name}".`,
  );
}

/** The newest first. */
function runsOf(client: MlflowClient, experiment: string, runId: string): Promise<MlflowRun[]> {
  const filter = `tags.\`${runTag}\` = ${quoted(runId)}`;
  return client.searchRuns({ experiment, filter, order: 'attributes.start_time DESC', limit: 100 });
}

async function createRun(client: MlflowClient, experiment: string, name: RunName): Promise<MlflowRun> {
  const attempt = randomBytes(8).toString('hex');
  const start_time = Date.now();
  const tags = {
    ...name.tags,
    [runTag]: name.runId,
    [attemptTag]: attempt,
    'mlflow.source.name': 'dandelion',
  };
  const filter = `tags.\`${attemptTag}\` = ${quoted(attempt)}`;
  return client.http.patiently(async () => {
    const [made] = await client.once.searchRuns({ experiment, filter, limit: 1 });
    return (
      made ?? client.once.createRun({ experiment_id: experiment, run_name: name.runName, start_time, tags })
    );
  });
}

/** Deleted, a run also refuses what a process that lost its lease still sends. */
async function discardRun(client: MlflowClient, { info }: MlflowRun): Promise<void> {
  for (const model of await client.findModels(info.experiment_id, info.run_id)) {
    await client.deleteModel(model.model_id);
  }
  await client.deleteRun(info.run_id);
}

function trackedRun(client: MlflowClient, opened: MlflowRun): TrackedRun {
  const { run_id: runId, experiment_id: experiment, start_time: timestamp } = opened.info;
  const proxyPath = (path: string) => `${proxyRoot(opened.info.artifact_uri)}/${path}`;
  return {
    url: mlflowPage(client.http.url, `experiments/${experiment}/runs/${runId}`),

    logParams(params) {
      const texts = Object.entries(params).map(([key, value]) => [key, String(value)]);
      return client.logBatch(runId, { params: Object.fromEntries(texts) });
    },

    async logMetrics(metrics) {
      const run = await client.getRun(runId);
      const fresh = await withoutKnown(client, run, metrics);
      const measured = measuredWith(run);
      await client.logBatch(runId, { metrics: fresh.map((entry) => ({ ...entry, ...measured, timestamp })) });
    },

    setTags: (tags) => client.logBatch(runId, { tags }),

    async logDataset({ name, digest, images, classes, splits }) {
      const source = JSON.stringify({ model: name, dataset: digest });
      const profile = JSON.stringify({ num_rows: images, classes, splits });
      const dataset = { name, digest, source_type: 'dandelion', source, profile };
      const tags = [{ key: 'mlflow.data.context', value: 'training' }];
      await client.logInputs(runId, [{ tags, dataset }]);
    },

    logArtifact: (path, content) => client.http.upload(proxyPath(path), content),
    readArtifact: (path) => client.http.download(proxyPath(path)),

    async metricHistory(key) {
      const points = await client.metricHistory(runId, key);
      return points.map((point) => ({ key, value: point.value, step: point.step }));
    },

    logModel: (model) => logModel(client, { experiment, runId }, model),
    end: (status) => client.updateRun(runId, status, Date.now()),
  };
}

/** Leaves out what the run has a value for. Only keys that it has at all cost a look at their history. */
async function withoutKnown(
  client: MlflowClient,
  run: MlflowRun,
  metrics: readonly Metric[],
): Promise<Metric[]> {
  const wanted = new Set(metrics.map(({ key }) => key));
  const known = new Set<string>();
  for (const { key } of run.data.metrics) {
    if (!wanted.has(key)) continue;
    for (const { step } of await client.metricHistory(run.info.run_id, key)) known.add(`${step} ${key}`);
  }
  return metrics.filter(({ key, step }) => !known.has(`${step} ${key}`));
}

/** The model and the dataset of the run, as metrics carry them. */
function measuredWith({ inputs, outputs }: MlflowRun): Pick<MetricEntry, 'model_id' | 'dataset_name'> {
  const model = outputs.model_outputs.at(-1);
  if (model === undefined) return {};
  const dataset = inputs.dataset_inputs.at(-1)?.dataset;
  return {
    model_id: model.model_id,
    ...(dataset && { dataset_name: dataset.name, dataset_digest: dataset.digest }),
  };
}

async function logModel(
  client: MlflowClient,
  { experiment, runId }: { experiment: string; runId: string },
  model: TrackedModel,
): Promise<void> {
  const { name, version, params, files } = model;
  const texts = Object.entries(params).map(([key, value]) => [key, String(value)]);
  const { model_id: modelId, artifact_uri: uri } = await client.http.patiently(async () => {
    const [made] = await client.once.findModels(experiment, runId);
    if (made !== undefined) return made;
    return client.once.createModel({
      ...{ experiment_id: experiment, name, model_type: 'image-classifier', source_run_id: runId },
      params: Object.fromEntries(texts),
      tags: { [versionTag]: version },
    });
  });
  const root = proxyRoot(uri);
  for (const [path, content] of Object.entries(files)) await client.http.upload(`${root}/${path}`, content);
  // The last: a folder with this file is a model.
  const description = mlmodelFile(model, { artifactPath: uri, runId, modelId });
  await client.http.upload(`${root}/MLmodel`, description);
  await client.finishModel(modelId);
  await client.http.patiently(async () => {
    const { outputs } = await client.once.getRun(runId);
    const isLinked = outputs.model_outputs.some((output) => output.model_id === modelId);
    if (!isLinked) await client.once.logOutput(runId, modelId);
  });
}

/** @throws DandelionError `bad-config` when clients of this server would have to reach its storage themselves */
function proxyRoot(uri: string): string {
  const path = /^mlflow-artifacts:\/(?:\/[^/]*\/)?(.+)$/.exec(uri)?.[1];
  if (path !== undefined) return path;
  throw new DandelionError(
    'bad-config',
    `MLflow keeps the files of this experiment at ${uri}, out of reach from here: start the server with --serve-artifacts and without --default-artifact-root, and train under a new model name.`,
  );
}

interface VersionToRegister {
  model: string;
  version: string;
  runId: string;
}

/** Our version under MLflow's number. A run that was started anew takes the place of the one before it. */
async function ensureVersion(client: MlflowClient, wanted: VersionToRegister): Promise<MlflowVersion> {
  const { model, version, runId } = wanted;
  const experiment = await experimentOf(client, model);
  const [found] = await runsOf(client, experiment, runId);
  const [registered] = await client.findVersions(model, versionTag, version);
  if (registered !== undefined && (found === undefined || registered.run_id === found.info.run_id))
    return registered;
  const name = { experiment: model, runId, runName: version, tags: { [versionTag]: version } };
  const run = found ?? (await createRun(client, experiment, name));
  // A deleted version takes its aliases with it.
  const aliases = registered ? (await client.getVersion(model, registered.version)).aliases : [];
  const made = await client.http.patiently(async () => {
    const versions = await client.once.findVersions(model, versionTag, version);
    return (
      versions.find(({ run_id: of }) => of === run.info.run_id) ??
      (await client.once.createVersion({ name: model, ...sourceOf(run), ...described(version, run) }))
    );
  });
  for (const alias of aliases) await client.setAlias(model, alias, made.version);
  if (registered !== undefined) await client.deleteVersion(model, registered.version);
  return made;
}

function sourceOf({ info, outputs }: MlflowRun) {
  const modelId = outputs.model_outputs.at(-1)?.model_id;
  const source = modelId === undefined ? `${info.artifact_uri}/model` : `models:/${modelId}`;
  return { source, run_id: info.run_id, model_id: modelId };
}

function described(version: string, run: MlflowRun) {
  const dataset = run.inputs.dataset_inputs.at(-1)?.dataset.digest;
  return {
    description: `Dandelion ${version}${dataset === undefined ? '' : `, trained on dataset ${dataset}`}.`,
    tags: { [versionTag]: version, ...(dataset && { 'dandelion.dataset': dataset }) },
  };
}
