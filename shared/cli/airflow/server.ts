import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DandelionError } from '../../errors.ts';
import { freePort, spawnGuarded } from '../../local/guarded-process.ts';
import { type AirflowApi, openAirflowApi } from './api.ts';
import { runPython, surroundings } from './python.ts';

/** In the order they are started; the others talk to the API server. */
const components = ['api-server', 'dag-processor', 'scheduler', 'triggerer'] as const;
export type Component = (typeof components)[number];

const startTimeoutMs = 180_000;
const stopTimeoutMs = 60_000;
/** Where an Airflow is, and who may use it. */
export interface AirflowAddress {
  url: string;
  user: string;
  password: string;
}

/** @param port any free one when not given */
export async function chooseAddress(port?: number): Promise<AirflowAddress> {
  const url = `http://127.0.0.1:${port ?? (await freePort())}`;
  return { url, user: 'admin', password: randomBytes(12).toString('hex') };
}

/** Airflow's four processes on this machine, with a database of their own. */
export interface AirflowServer extends AirflowAddress {
  api: AirflowApi;
  /** Starts what does not run, and waits until it is healthy. */
  start(...which: Component[]): Promise<void>;
  /** Ends them in order. */
  stop(...which: Component[]): Promise<void>;
  /** Ends them as a crash would, with every process they began. */
  kill(...which: Component[]): Promise<void>;
}

/**
 * Makes a private Airflow: LocalExecutor, SQLite, one account. Nothing runs yet.
 *
 * @param env as {@link airflowEnv} makes it
 */
export async function makeAirflow(
  python: string,
  env: Readonly<Record<string, string>>,
  { url, user, password }: AirflowAddress,
): Promise<AirflowServer> {
  const home = env.AIRFLOW_HOME ?? '';
  await mkdir(home, { recursive: true });
  const passwords = join(home, 'passwords.json');
  await writeFile(passwords, JSON.stringify({ [user]: password }), { mode: 0o600 });
  const settings = {
    ...env,
    AIRFLOW__CORE__EXECUTOR: 'LocalExecutor',
    AIRFLOW__CORE__PARALLELISM: '4',
    AIRFLOW__CORE__EXECUTION_API_SERVER_URL: `${url}/execution/`,
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS: `${user}:admin`,
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE: passwords,
    AIRFLOW__API__HOST: '127.0.0.1',
    AIRFLOW__API__PORT: new URL(url).port,
    AIRFLOW__API__BASE_URL: url,
    AIRFLOW__API__WORKERS: '1',
    AIRFLOW__API__SECRET_KEY: randomBytes(24).toString('hex'),
    AIRFLOW__API_AUTH__JWT_SECRET: randomBytes(48).toString('hex'),
    AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT: String(await freePort()),
    AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT: String(await freePort()),
  };
  const migrated = await runPython(python, ['-m', 'airflow', 'db', 'migrate'], {
    ...settings,
    AIRFLOW__LOGGING__LOGGING_LEVEL: 'ERROR',
  });
  if (migrated !== 0) throw new DandelionError('store-unavailable', 'Airflow could not make its database.');
  const running = new Map<Component, ChildProcess>();
  const api = openAirflowApi(url, { user, password });
  const logOf = (component: Component) => join(home, `${component}.log`);

  const startOne = async (component: Component) => {
    const server = await spawnGuarded({
      name: `dandelion-airflow-${component}`,
      command: [python, '-m', 'airflow', component],
      stopSignal: 'TERM',
      logPath: logOf(component),
      env: { ...surroundings(), ...settings },
    });
    running.set(component, server);
    const deadline = Date.now() + startTimeoutMs;
    while (!(await api.isHealthy(component))) {
      if (hasEnded(server) || Date.now() > deadline) {
        throw new DandelionError(
          'store-unavailable',
          `Airflow's ${component} does not start; its log is ${logOf(component)}.`,
        );
      }
      await sleep(250);
    }
  };

  const end = async (component: Component, how: (server: ChildProcess) => void) => {
    const server = running.get(component);
    running.delete(component);
    if (server === undefined || hasEnded(server)) return;
    const exited = once(server, 'exit');
    how(server);
    const stuck = setTimeout(() => killSession(server), stopTimeoutMs);
    await exited;
    clearTimeout(stuck);
  };
  const all = (which: Component[]) => (which.length === 0 ? [...components] : which);

  return {
    ...{ url, user, password, api },
    async start(...which) {
      for (const component of all(which)) if (!running.has(component)) await startOne(component);
    },
    async stop(...which) {
      // The API server last: the others tell it of their end.
      for (const component of all(which).reverse()) await end(component, (server) => server.stdin?.end());
    },
    async kill(...which) {
      await Promise.all(all(which).map((component) => end(component, killSession)));
    },
  };
}

const hasEnded = (server: ChildProcess) => server.exitCode !== null || server.signalCode !== null;

function killSession(server: ChildProcess): void {
  if (server.pid === undefined) return;
  try {
    process.kill(-server.pid, 'SIGKILL');
  } catch {
    // It has just ended by itself.
  }
}
