import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from 'undici';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { processEnvironment } from '../../function/settings.ts';

export interface ServerOptions {
  /** For messages and for the name of its log. */
  name: string;
  /** Program and parameters; the port is one that was free a moment ago, or 0. */
  command(port: number): string[];
  env: Readonly<Record<string, string | undefined>>;
  logsDir: string;
  /** Answers 200 when the server takes work. */
  readyPath: string;
  /** It sends `{ listening: { port } }` over IPC. */
  announcesPort?: boolean;
  startTimeoutMs?: number;
}

/** A server in a process of its own; it writes its log straight into a file, so that nobody else works for it. */
export interface RunningServer {
  name: string;
  url: string;
  processId: number;
  /** From just before its process was started until it was ready. */
  readyMs: number;
  /** Begin of the start, on the clock of `performance.now()`. */
  startedAt: number;
  stop(): Promise<void>;
}

const listening = z.object({ listening: z.object({ port: z.number() }) });
const running = new Set<ChildProcess>();
process.on('exit', () => {
  // Not SIGKILL: a server that has processes of its own must be able to end them.
  for (const child of running) child.kill('SIGTERM');
});

/** @throws DandelionError `upstream-unavailable` with the end of its log when it does not become ready */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { name, announcesPort = false, startTimeoutMs = 120_000 } = options;
  const wantedPort = announcesPort ? 0 : await freePort();
  const logPath = join(options.logsDir, `${name.replaceAll(/[^a-z0-9]+/gi, '-')}.log`);
  mkdirSync(dirname(logPath), { recursive: true });
  const log = openSync(logPath, 'a');
  const startedAt = performance.now();
  const [program = '', ...parameters] = options.command(wantedPort);
  const child = spawn(program, parameters, {
    env: { ...options.env, HOST: '127.0.0.1', PORT: String(wantedPort) },
    stdio: announcesPort ? ['ignore', log, log, 'ipc'] : ['ignore', log, log],
  });
  closeSync(log);
  running.add(child);
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  }).then(() => running.delete(child));
  const port = announcesPort ? await announcedPort(child, ended) : wantedPort;
  const url = `http://127.0.0.1:${port}`;
  const deadline = startedAt + startTimeoutMs;
  while (!(await isReady(url + options.readyPath))) {
    if (running.has(child) && performance.now() < deadline) {
      await sleep(announcesPort ? 1 : 20);
      continue;
    }
    child.kill('SIGKILL');
    throw new DandelionError(
      'upstream-unavailable',
      `${name} did not start; the end of its log ${logPath}: ${readFileSync(logPath, 'utf8').slice(-600)}`,
    );
  }
  const readyMs = performance.now() - startedAt;
  const stop = () => stopProcess(child, ended);
  return { name, url, processId: child.pid ?? 0, readyMs, startedAt, stop };
}

/** A function's bundle, started as the platform starts it. */
export function startBundle(
  name: string,
  options: { distDir: string; env: Readonly<Record<string, string | undefined>>; logsDir: string },
): Promise<RunningServer> {
  const env = { ...processEnvironment, ...options.env };
  return startNode(name, join(options.distDir, name, 'index.mjs'), { ...options, env });
}

/** A program for Node that announces its port and answers `/health/ready`. */
export function startNode(
  name: string,
  script: string,
  options: { env: Readonly<Record<string, string | undefined>>; logsDir: string; parameters?: string[] },
): Promise<RunningServer> {
  return startServer({
    name,
    command: () => [
      ...[process.execPath, '--disable-warning=ExperimentalWarning', script],
      ...(options.parameters ?? []),
    ],
    env: options.env,
    logsDir: options.logsDir,
    readyPath: '/health/ready',
    announcesPort: true,
  });
}

async function announcedPort(child: ChildProcess, ended: Promise<unknown>): Promise<number> {
  const message = once(child, 'message').then(([sent]) => listening.parse(sent).listening.port);
  return Promise.race([message, ended.then(() => 0)]);
}

async function isReady(url: string): Promise<boolean> {
  try {
    const { statusCode, body } = await request(url);
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

async function stopProcess(child: ChildProcess, ended: Promise<unknown>): Promise<void> {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (typeof address === 'object' && address !== null) return address.port;
  throw new DandelionError('internal', 'There is no free TCP port.');
}
