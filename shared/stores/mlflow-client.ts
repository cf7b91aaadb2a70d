import { z } from 'zod';
import type { TrackingSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import {
  experiment,
  loggedModel,
  type MlflowMetric,
  type MlflowModel,
  type MlflowRun,
  type MlflowVersion,
  metric,
  nothing,
  page,
  run,
  version,
} from './mlflow-answers.ts';
import { type Call, type MlflowHttp, openMlflowHttp, type Refusal } from './mlflow-http.ts';

const runStatuses = ['RUNNING', 'SCHEDULED', 'FINISHED', 'FAILED', 'KILLED'] as const;
export type MlflowStatus = (typeof runStatuses)[number];

/** Entries of one `log-batch` call (https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits). */
const CHUNK = { metrics: 1000, params: 100, tags: 100 };
/** Beyond these lengths MLflow cuts in silence (params, tags) or refuses (keys). */
const LONGEST = { key: 250, param: 6000, tag: 8000 };

/** A value of a metric on its way to the server; the dataset and the model are what it was measured with. */
export interface MetricEntry {
  key: string;
  value: number;
  timestamp: number;
  step: number;
  model_id?: string;
  dataset_name?: string;
  dataset_digest?: string;
}

export interface Batch {
  metrics?: readonly MetricEntry[];
  params?: Readonly<Record<string, string>>;
  tags?: Readonly<Record<string, string>>;
}

export interface DatasetEntry {
  tags: { key: string; value: string }[];
  dataset: {
    name: string;
    digest: string;
    source_type: string;
    source: string;
    schema?: string;
    profile?: string;
  };
}

export type MlflowClient = ReturnType<typeof openMlflowClient>;

const tagList = (tags: Readonly<Record<string, string>>) =>
  Object.entries(tags).map(([key, value]) => ({ key, value }));
const isMissing = ({ error_code: code }: Refusal) => code === 'RESOURCE_DOES_NOT_EXIST';
const isThere = ({ error_code: code }: Refusal) => code === 'RESOURCE_ALREADY_EXISTS';

/**
 * A typed client of MLflow's REST API (tracking, artifacts, logged models, registry), seen to work with 3.17.
 *
 * What MLflow lets pass in silence is an error here: an unknown status, values that it would cut.
 *
 * Every call throws DandelionError: `store-unavailable` when the server is away or in trouble for longer than this
 * client is patient, `bad-config` for wrong addresses and credentials, `store-refused` for what MLflow does not take.
 */
export function openMlflowClient(
  settings: TrackingSettings & { MLFLOW_TRACKING_URI: string },
  options: { patienceMs?: number } = {},
) {
  const http = openMlflowHttp(settings, options);
  return { ...callsOver(http), http, once: callsOver({ ...http, ...http.once }) };
}

function callsOver(http: Pick<MlflowHttp, 'url' | 'call'>) {
  /** For calls that have no `unless`: an answer is certain. */
  const call = async <Schema extends z.ZodType>(request: Omit<Call, 'unless'>, schema: Schema) => {
    const answer = await http.call(request, schema);
    if (answer === undefined) throw new DandelionError('internal', `${request.path} had no answer.`);
    return answer;
  };
  const post = <Schema extends z.ZodType>(path: string, body: unknown, schema: Schema) =>
    call({ method: 'POST', path, body }, schema);

  return {
    // Experiments
    async findExperiment(name: string) {
      const query = { experiment_name: name };
      const request = { method: 'GET', path: 'experiments/get-by-name', query, unless: isMissing } as const;
      return (await http.call(request, z.object({ experiment })))?.experiment;
    },
    /** @returns undefined when there is one of this name already */
    async createExperiment(name: string): Promise<string | undefined> {
      const request = {
        method: 'POST',
        path: 'experiments/create',
        body: { name },
        unless: isThere,
      } as const;
      return (await http.call(request, z.object({ experiment_id: z.string() })))?.experiment_id;
    },
    /** Any answer proves address, credentials and the server's guards; its health page passes without them. */
    async check(): Promise<void> {
      await post('experiments/search', { max_results: 1 }, nothing);
    },

    // Runs
    async createRun(entry: {
      experiment_id: string;
      run_name: string;
      start_time: number;
      tags: Record<string, string>;
    }): Promise<MlflowRun> {
      checkLengths({ tags: entry.tags });
      return (await post('runs/create', { ...entry, tags: tagList(entry.tags) }, z.object({ run }))).run;
    },
    async getRun(run_id: string): Promise<MlflowRun> {
      return (await call({ method: 'GET', path: 'runs/get', query: { run_id } }, z.object({ run }))).run;
    },
    async updateRun(run_id: string, status: MlflowStatus, end_time?: number): Promise<void> {
      if (!runStatuses.includes(status)) {
        throw new DandelionError(
          'store-refused',
          `"${status}" is no status of a run (${runStatuses.join(', ')}): MLflow would ignore it.`,
        );
      }
      await post('runs/update', { run_id, status, end_time }, nothing);
    },
    async deleteRun(run_id: string): Promise<void> {
      await post('runs/delete', { run_id }, nothing);
    },
    /** Runs that are not deleted; `filter` and `order` in MLflow's search syntax. */
    async searchRuns(search: {
      experiment: string;
      filter: string;
      order?: string;
      limit: number;
    }): Promise<MlflowRun[]> {
      const found: MlflowRun[] = [];
      let page_token: string | undefined;
      do {
        const body = {
          experiment_ids: [search.experiment],
          filter: search.filter,
          order_by: search.order === undefined ? [] : [search.order],
          max_results: Math.min(1000, search.limit - found.length),
          page_token,
        };
        const answer = await post('runs/search', body, page('runs', run));
        found.push(...answer.runs);
        page_token = answer.next_page_token;
      } while (page_token !== undefined && page_token !== '' && found.length < search.limit);
      return found;
    },
    /** In as many calls as MLflow's limits need. A batch that is repeated, timestamps included, is kept once. */
    async logBatch(run_id: string, { metrics = [], params = {}, tags = {} }: Batch): Promise<void> {
      checkLengths({ metrics, params, tags });
      const numbers = metrics.map((entry) => ({ ...entry, value: asJson(entry.value) }));
      for (const part of chunks(numbers, CHUNK.metrics)) {
        await post('runs/log-batch', { run_id, metrics: part }, nothing);
      }
      for (const part of chunks(tagList(params), CHUNK.params)) {
        await post('runs/log-batch', { run_id, params: part }, nothing);
      }
      for (const part of chunks(tagList(tags), CHUNK.tags)) {
        await post('runs/log-batch', { run_id, tags: part }, nothing);
      }
    },
    async metricHistory(run_id: string, metric_key: string): Promise<MlflowMetric[]> {
      const found: MlflowMetric[] = [];
      let token: string | undefined;
      do {
        const query = { run_id, metric_key, ...(token ? { page_token: token } : {}) };
        const answer = await call(
          { method: 'GET', path: 'metrics/get-history', query },
          page('metrics', metric),
        );
        found.push(...answer.metrics);
        token = answer.next_page_token;
      } while (token !== undefined && token !== '');
      return found;
    },
    async logInputs(run_id: string, datasets: DatasetEntry[]): Promise<void> {
      await post('runs/log-inputs', { run_id, datasets }, nothing);
    },

    // Logged models
    async createModel(entry: {
      experiment_id: string;
      name: string;
      model_type: string;
      source_run_id: string;
      params: Record<string, string>;
      tags: Record<string, string>;
    }): Promise<MlflowModel> {
      const body = { ...entry, params: tagList(entry.params), tags: tagList(entry.tags) };
      return (await post('logged-models', body, z.object({ model: loggedModel }))).model.info;
    },
    async findModels(experiment: string, runId: string): Promise<MlflowModel[]> {
      const body = { experiment_ids: [experiment], filter: `source_run_id = ${quoted(runId)}` };
      const { models } = await post('logged-models/search', body, page('models', loggedModel));
      return models.map(({ info }) => info);
    },
    async finishModel(model_id: string): Promise<void> {
      const body = { model_id, status: 'LOGGED_MODEL_READY' };
      await call({ method: 'PATCH', path: `logged-models/${model_id}`, body }, nothing);
    },
    async deleteModel(model_id: string): Promise<void> {
      await http.call(
        { method: 'DELETE', path: `logged-models/${model_id}`, body: {}, unless: isMissing },
        nothing,
      );
    },
    /** Said twice of the same model, MLflow answers with its database's error: look at the run before. */
    async logOutput(run_id: string, model_id: string): Promise<void> {
      await post('runs/outputs', { run_id, models: [{ model_id, step: 0 }] }, nothing);
    },

    // Registry
    /** One that is there already is left as it is. */
    async createRegisteredModel(name: string, description: string): Promise<void> {
      const body = { name, description };
      await http.call({ method: 'POST', path: 'registered-models/create', body, unless: isThere }, nothing);
    },
    async createVersion(entry: {
      name: string;
      source: string;
      run_id: string;
      model_id?: string | undefined;
      description: string;
      tags: Record<string, string>;
    }): Promise<MlflowVersion> {
      const body = { ...entry, tags: tagList(entry.tags) };
      return (await post('model-versions/create', body, z.object({ model_version: version }))).model_version;
    },
    async getVersion(name: string, number: string): Promise<MlflowVersion> {
      const query = { name, version: number };
      const schema = z.object({ model_version: version });
      return (await call({ method: 'GET', path: 'model-versions/get', query }, schema)).model_version;
    },
    /** Versions of a model with this tag, the oldest first. */
    async findVersions(name: string, tag: string, value: string): Promise<MlflowVersion[]> {
      const filter = `name = ${quoted(name)} and tags.\`${tag}\` = ${quoted(value)}`;
      const query = { filter, order_by: 'version_number ASC' };
      const schema = page('model_versions', version);
      return (await call({ method: 'GET', path: 'model-versions/search', query }, schema)).model_versions;
    },
    async deleteVersion(name: string, number: string): Promise<void> {
      const body = { name, version: number };
      await http.call({ method: 'DELETE', path: 'model-versions/delete', body, unless: isMissing }, nothing);
    },
    async setAlias(name: string, alias: string, number: string): Promise<void> {
      await post('registered-models/alias', { name, alias, version: number }, nothing);
    },
    /** @returns undefined where there is no such alias or model; MLflow calls a missing alias a bad parameter */
    async findAlias(name: string, alias: string): Promise<MlflowVersion | undefined> {
      const isNoAlias = (said: Refusal) =>
        isMissing(said) ||
        (said.error_code === 'INVALID_PARAMETER_VALUE' && said.message.includes('not found'));
      const path = 'registered-models/alias';
      const request = { method: 'GET', path, query: { name, alias }, unless: isNoAlias } as const;
      return (await http.call(request, z.object({ model_version: version })))?.model_version;
    },
  };
}

function checkLengths({ metrics = [], params = {}, tags = {} }: Batch): void {
  const keys = [...metrics.map(({ key }) => key), ...Object.keys(params), ...Object.keys(tags)];
  const longKey = keys.find((key) => key.length > LONGEST.key);
  if (longKey !== undefined) throw tooLong('name', longKey, longKey.length, LONGEST.key);
  for (const [kind, values, limit] of [
    ['parameter', params, LONGEST.param],
    ['tag', tags, LONGEST.tag],
  ] as const) {
    const long = Object.entries(values).find(([, value]) => value.length > limit);
    if (long !== undefined) throw tooLong(kind, long[0], long[1].length, limit);
  }
}

function tooLong(kind: string, name: string, length: number, limit: number): DandelionError {
  const sentence = `The ${kind} "${name.slice(0, 60)}" has ${length} characters; MLflow keeps ${limit}. Log it as an artifact.`;
  return new DandelionError('store-refused', sentence);
}

function chunks<Item>(items: readonly Item[], size: number): Item[][] {
  const count = Math.ceil(items.length / size);
  return Array.from({ length: count }, (_, index) => items.slice(index * size, (index + 1) * size));
}

function asJson(value: number): number | string {
  return Number.isFinite(value) ? value : String(value);
}

/** A string in MLflow's search syntax, which knows no escape for quotes. */
export function quoted(text: string): string {
  if (text.includes("'")) throw new DandelionError('store-refused', `MLflow cannot search for "${text}".`);
  return `'${text}'`;
}
