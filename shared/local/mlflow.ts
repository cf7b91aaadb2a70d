import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { DandelionError } from '../errors.ts';
import { freePort, spawnGuarded } from './guarded-process.ts';
import { preparePython } from './python-environment.ts';

export interface MlflowOptions {
  /** Folder of the server's own: database and files; made when missing. */
  dataDir: string;
  /** On 127.0.0.1; MLflow's usual 5000 where it is free, else any. */
  port?: number;
  /** Told when it makes one wait. */
  say?: (sentence: string) => void;
  logger?: Logger;
  signal?: AbortSignal | undefined;
}

/** A server that runs for as long as this process. */
export interface RunningMlflow {
  /** For people and programs. */
  url: string;
  /** Ends it in order. */
  stop(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
}

const requirements = join(import.meta.dirname, 'mlflow-requirements.txt');
/** As the pinned numpy and pandas want it. */
const oldestPython: [number, number] = [3, 11];
const usualPort = 5000;
/** A first start makes the tables of its database. */
const startTimeoutMs = 180_000;
const stopTimeoutMs = 15_000;

/**
 * Starts an MLflow server on 127.0.0.1, from a private Python environment that the first use installs.
 *
 * @throws DandelionError `bad-config` when there is no fit Python or the packages cannot be had, `store-unavailable`
 *   with the last lines of its log when the server does not come up
 */
export async function startMlflow(options: MlflowOptions): Promise<RunningMlflow> {
  const { say, signal, logger } = options;
  const wanted = { requirements, atLeast: oldestPython, purpose: 'MLflow', signal };
  const python = await preparePython(say === undefined ? wanted : { ...wanted, say });
  await mkdir(join(options.dataDir, 'artifacts'), { recursive: true });
  const dataDir = await realpath(options.dataDir);
  const port = options.port ?? (await freePort(usualPort));
  const url = `http://127.0.0.1:${port}`;
  const logPath = join(dataDir, 'mlflow.log');
  say?.('Starting MLflow: some ten seconds ...');
  const server = await spawnGuarded({
    name: 'dandelion-mlflow',
    command: [
      ...[python, '-m', 'mlflow', 'server', '--host', '127.0.0.1', '--port', String(port), '--workers', '1'],
      ...['--backend-store-uri', `sqlite:///${join(dataDir, 'mlflow.db')}`],
      ...['--artifacts-destination', join(dataDir, 'artifacts')],
    ],
    stopSignal: 'TERM',
    logPath,
    env: serverEnvironment(),
  });
  try {
    await waitUntilReady(server, { url, logPath, signal });
  } catch (error) {
    await stop(server);
    throw error;
  }
  logger?.info({ event: { action: 'mlflow-started' } }, `MLflow runs at ${url}`);
  return { url, stop: () => stop(server), kill: () => kill(server) };
}

function serverEnvironment(): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(([name]) => !/^(MLFLOW_|PYTHON)/.test(name));
  return {
    ...Object.fromEntries(own),
    // Jobs are for evaluations by language models: eight more processes.
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION: 'false',
    MLFLOW_DISABLE_TELEMETRY: 'true',
    GIT_PYTHON_REFRESH: 'quiet',
  };
}

async function waitUntilReady(
  server: ChildProcess,
  { url, logPath, signal }: { url: string; logPath: string; signal: AbortSignal | undefined },
): Promise<void> {
  const deadline = Date.now() + startTimeoutMs;
  while (Date.now() < deadline) {
    signal?.throwIfAborted();
    if (hasEnded(server)) throw notStarted(`it ended: ${await lastLines(logPath)}`, logPath);
    const isUp = await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (isUp) return;
    await sleep(100);
  }
  throw notStarted(`it was not ready after ${startTimeoutMs / 1000} s`, logPath);
}

function notStarted(why: string, logPath: string): DandelionError {
  return new DandelionError('store-unavailable', `MLflow did not start: ${why} (log: ${logPath})`);
}

async function lastLines(logPath: string): Promise<string> {
  const log = await readFile(logPath, 'utf8').catch(() => '');
  return log.trim().split('\n').slice(-3).join(' | ');
}

const hasEnded = (server: ChildProcess) => server.exitCode !== null || server.signalCode !== null;

async function stop(server: ChildProcess): Promise<void> {
  if (hasEnded(server)) return;
  const exited = once(server, 'exit');
  if (process.platform === 'win32') server.kill();
  server.stdin?.end();
  const stuck = setTimeout(() => killSession(server), stopTimeoutMs);
  await exited;
  clearTimeout(stuck);
}

async function kill(server: ChildProcess): Promise<void> {
  if (hasEnded(server)) return;
  const exited = once(server, 'exit');
  killSession(server);
  await exited;
}

/** The server and the workers it started. */
function killSession(server: ChildProcess): void {
  if (server.pid === undefined) return;
  if (process.platform === 'win32') server.kill();
  else process.kill(-server.pid, 'SIGKILL');
}
