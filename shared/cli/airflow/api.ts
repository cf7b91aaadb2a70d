import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';

const dagRun = z.object({
  dag_run_id: z.string(),
  state: z.string(),
  start_date: z.iso.datetime({ offset: true }).nullable(),
  end_date: z.iso.datetime({ offset: true }).nullable(),
});
export type DagRun = z.infer<typeof dagRun>;

const taskInstance = z.object({
  task_id: z.string(),
  /** -1 where the task is not mapped. */
  map_index: z.number().int(),
  state: z.string().nullable(),
  try_number: z.number().int(),
  start_date: z.iso.datetime({ offset: true }).nullable(),
  end_date: z.iso.datetime({ offset: true }).nullable(),
});
export type TaskInstance = z.infer<typeof taskInstance>;

const importErrors = z.object({ import_errors: z.array(z.object({ stack_trace: z.string() })) });

const health = z.record(z.string(), z.object({ status: z.string().nullable() }).loose().nullable());

/** What the scenarios ask of Airflow's REST API, version 2. */
export interface AirflowApi {
  isHealthy(component: string): Promise<boolean>;
  /** Waits until the DAG is known. @throws DandelionError when one cannot be read */
  awaitDag(dagId: string): Promise<void>;
  /** @returns status and, when it was taken, id of the new run */
  trigger(dagId: string, conf: unknown): Promise<{ status: number; runId?: string; detail: string }>;
  runs(dagId: string): Promise<DagRun[]>;
  tasks(dagId: string, runId: string): Promise<TaskInstance[]>;
  /** Addresses beside a task, by their names. */
  links(dagId: string, runId: string, taskId: string): Promise<Record<string, string | null>>;
  /** The log of a task's try, as lines. */
  log(dagId: string, runId: string, taskId: string, tryNumber: number): Promise<string>;
  /** Makes every task of a run begin anew. */
  clear(dagId: string, runId: string): Promise<void>;
  pause(dagId: string, isPaused: boolean): Promise<void>;
  /** Waits for the end of a run. @throws DandelionError when there is none in time */
  awaitEnd(dagId: string, runId: string): Promise<DagRun>;
  /** Waits until a task is in one of the states. */
  awaitTask(dagId: string, runId: string, taskId: string, states: readonly string[]): Promise<TaskInstance>;
}

const pollMs = 250;
const patienceMs = 300_000;
const answerWithinMs = 30_000;

export function openAirflowApi(url: string, account: { user: string; password: string }): AirflowApi {
  let bearer: string | undefined;

  const send = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(`${url}${path}`, {
      ...init,
      headers: {
        'content-type': 'application/json',
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      },
      signal: AbortSignal.timeout(answerWithinMs),
    });
    const text = await response.text();
    return { status: response.status, text };
  };
  const logIn = async () => {
    const body = JSON.stringify({ username: account.user, password: account.password });
    const { text } = await send('/auth/token', { method: 'POST', body });
    bearer = z.object({ access_token: z.string() }).parse(JSON.parse(text)).access_token;
  };
  const ask = async <Schema extends z.ZodType>(
    path: string,
    schema: Schema,
    init: RequestInit = {},
  ): Promise<z.output<Schema>> => {
    if (bearer === undefined) await logIn();
    const { status, text } = await send(`/api/v2${path}`, init);
    if (status >= 300) {
      throw new DandelionError(
        'store-refused',
        `Airflow answered ${status} to ${path}: ${text.slice(0, 300)}`,
      );
    }
    return schema.parse(text === '' ? {} : JSON.parse(text));
  };
  const post = (body: unknown, method = 'POST') => ({ method, body: JSON.stringify(body) });
  const runPath = (dagId: string, runId: string) => `/dags/${dagId}/dagRuns/${encodeURIComponent(runId)}`;

  const poll = async <Found>(what: string, look: () => Promise<Found | undefined>): Promise<Found> => {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      // A server that restarts is no answer.
      const found = await look().catch(() => undefined);
      if (found !== undefined) return found;
      if (Date.now() > deadline) {
        throw new DandelionError('store-unavailable', `${what} did not come within ${patienceMs / 1000} s.`);
      }
      await sleep(pollMs);
    }
  };

  const api: AirflowApi = {
    async isHealthy(component) {
      const answer = await send('/api/v2/monitor/health').catch(() => undefined);
      if (answer?.status !== 200) return false;
      if (component === 'api-server') return true;
      return health.parse(JSON.parse(answer.text))[component.replace('-', '_')]?.status === 'healthy';
    },
    async awaitDag(dagId) {
      const fault = await poll(`The DAG ${dagId}`, async () => {
        const known = await ask(`/dags/${dagId}`, z.object({ dag_id: z.string() })).catch(() => undefined);
        if (known !== undefined) return '';
        return (await ask('/importErrors', importErrors)).import_errors[0]?.stack_trace;
      });
      if (fault !== '') throw new DandelionError('store-refused', `Airflow cannot read a DAG: ${fault}`);
    },
    async trigger(dagId, conf) {
      if (bearer === undefined) await logIn();
      const { status, text } = await send(
        `/api/v2/dags/${dagId}/dagRuns`,
        post({ logical_date: null, conf }),
      );
      const made = status < 300 ? { runId: dagRun.parse(JSON.parse(text)).dag_run_id } : {};
      return { status, detail: text, ...made };
    },
    runs: async (dagId) =>
      (await ask(`/dags/${dagId}/dagRuns?limit=100`, z.object({ dag_runs: z.array(dagRun) }))).dag_runs,
    async tasks(dagId, runId) {
      const path = `${runPath(dagId, runId)}/taskInstances?limit=100`;
      return (await ask(path, z.object({ task_instances: z.array(taskInstance) }))).task_instances;
    },
    async links(dagId, runId, taskId) {
      const path = `${runPath(dagId, runId)}/taskInstances/${taskId}/links`;
      const answer = z.object({ extra_links: z.record(z.string(), z.string().nullable()) });
      return (await ask(path, answer)).extra_links;
    },
    async log(dagId, runId, taskId, tryNumber) {
      const path = `${runPath(dagId, runId)}/taskInstances/${taskId}/logs/${tryNumber}?full_content=true`;
      const { content } = await ask(path, z.object({ content: z.unknown() }));
      return JSON.stringify(content);
    },
    async clear(dagId, runId) {
      const body = { dry_run: false, dag_run_id: runId, only_failed: false, reset_dag_runs: true };
      await ask(`/dags/${dagId}/clearTaskInstances`, z.unknown(), post(body));
    },
    async pause(dagId, isPaused) {
      await ask(`/dags/${dagId}`, z.unknown(), post({ is_paused: isPaused }, 'PATCH'));
    },
    awaitEnd: (dagId, runId) =>
      poll(`The end of ${runId}`, async () => {
        const run = await ask(runPath(dagId, runId), dagRun);
        return ['success', 'failed'].includes(run.state) ? run : undefined;
      }),
    awaitTask: (dagId, runId, taskId, states) =>
      poll(`${taskId} ${states.join(' or ')}`, async () => {
        const found = (await api.tasks(dagId, runId)).find((task) => task.task_id === taskId);
        return found !== undefined && states.includes(found.state ?? '') ? found : undefined;
      }),
  };
  return api;
}
