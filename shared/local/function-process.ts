import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from 'undici';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { BAD_CONFIG_EXIT, processEnvironment } from '../function/settings.ts';
import type { LogFile } from './log-file.ts';

/** A process of a function that works on one event and ends with it. */
export interface JobProcess {
  /** Owner of the leases it takes. */
  readonly instanceId: string;
  readonly processId: number;
  /** Resolves when the process is gone, with what it said last. */
  readonly ended: Promise<FunctionEnd>;
  /** SIGTERM, and SIGKILL when it is still there after the grace period. */
  stop(graceMs: number): Promise<void>;
}

/** One process of a function, from its start to its end. */
export interface FunctionProcess extends JobProcess {
  readonly url: string;
}

export interface FunctionEnd {
  instanceId: string;
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Its last error lines, for a message; empty when there are none. */
  lastWords: string;
}

export interface FunctionProcessOptions {
  name: string;
  /** The bundle's `index.mjs`. */
  entry: string;
  env: Readonly<Record<string, string | undefined>>;
  log: LogFile;
}

const listening = z.object({ listening: z.object({ port: z.number().int().positive() }) });
const logLine = z.object({
  'log.level': z.string(),
  message: z.string().default(''),
  error: z.object({ message: z.string().optional() }).optional(),
});

const keptLines = 30;

/**
 * Starts a function's bundle on a port of its own and waits until it says it is ready.
 *
 * @throws DandelionError `upstream-unavailable` with the process's last error lines when it ends or is not ready in time;
 *   `bad-config` when its settings are why
 */
export async function startFunctionProcess(
  options: FunctionProcessOptions & { startTimeoutMs: number },
): Promise<FunctionProcess> {
  const { child, ...started } = spawnBundle(options, {});
  try {
    const url = await waitUntilReady(child, started.ended, options.startTimeoutMs);
    return { ...started, url };
  } catch (error) {
    await started.stop(1000);
    const why = error instanceof Error ? error.message : String(error);
    const { code, lastWords: words } = await started.ended;
    throw new DandelionError(
      code === BAD_CONFIG_EXIT ? 'bad-config' : 'upstream-unavailable',
      `The function ${options.name} did not start: ${why}${words === '' ? '' : `: ${words.replace(/\.$/, '')}`}. Its log is ${options.log.path}`,
      { cause: error, retryAfterMs: 1000, extra: { function: options.name } },
    );
  }
}

/** Starts a function's bundle on the one event in a file, as a JobSink would. */
export function startJobProcess(options: FunctionProcessOptions & { eventPath: string }): JobProcess {
  const { child: _, ...started } = spawnBundle(options, { K_EVENT_PATH: options.eventPath });
  return started;
}

/** The IPC channel is what ends a function whose platform was killed: the runtime stops when it closes. */
function spawnBundle({ entry, env, log }: FunctionProcessOptions, more: Record<string, string>) {
  const instanceId = randomUUID();
  const own = { PORT: '0', HOST: '127.0.0.1', INSTANCE_ID: instanceId, ...more };
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', entry], {
    env: { ...processEnvironment, ...env, ...own },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // A session of its own: Ctrl-C in the terminal is the platform's to handle, which stops functions in order.
    detached: true,
  });
  const ended = waitForEnd(child, instanceId, keepLog(child, log));
  const stop = (graceMs: number) => stopChild(child, ended, graceMs);
  return { child, instanceId, processId: child.pid ?? 0, ended, stop };
}

function waitForEnd(child: ChildProcess, instanceId: string, lastWords: () => string): Promise<FunctionEnd> {
  return new Promise((resolve) => {
    child.once('error', (error) => {
      if (child.pid === undefined) {
        resolve({ instanceId, code: null, signal: null, lastWords: error.message });
      }
    });
    // "close" comes after the last line was read.
    child.once('close', (code, signal) => resolve({ instanceId, code, signal, lastWords: lastWords() }));
  });
}

async function waitUntilReady(
  child: ChildProcess,
  ended: Promise<FunctionEnd>,
  timeoutMs: number,
): Promise<string> {
  const cancel = new AbortController();
  const { signal } = cancel;
  const early = ended.then((end) => {
    throw new Error(`it ended with ${end.signal ?? `exit code ${end.code}`}`);
  });
  const late = sleep(timeoutMs, undefined, { signal }).then(() => {
    throw new Error(`it was not ready after ${timeoutMs / 1000} s`);
  });
  try {
    return await Promise.race([readyUrl(child, signal), early, late]);
  } finally {
    cancel.abort();
    late.catch(() => {});
    early.catch(() => {});
  }
}

async function readyUrl(child: ChildProcess, signal: AbortSignal): Promise<string> {
  const url = `http://127.0.0.1:${await portOf(child)}`;
  while (!signal.aborted) {
    if (await isReady(url, signal)) return url;
    await sleep(20);
  }
  throw new Error('it was stopped');
}

function portOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.on('message', (message) => {
      const parsed = listening.safeParse(message);
      if (parsed.success) resolve(parsed.data.listening.port);
    });
  });
}

async function isReady(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`${url}/health/ready`, { signal });
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

async function stopChild(child: ChildProcess, ended: Promise<FunctionEnd>, graceMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) {
    await ended;
    return;
  }
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await once(child, 'exit').catch(() => {});
  clearTimeout(timer);
  await ended;
}

/** Appends what a process writes to its log; the returned function gives its last error lines. */
function keepLog(child: ChildProcess, log: LogFile): () => string {
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    stream.on('error', () => {});
    createInterface({ input: stream }).on('line', (line) => {
      log.append(`${line}\n`);
      lines.push(line);
      if (lines.length > keptLines) lines.shift();
    });
  }
  return () => lastErrors(lines);
}

function lastErrors(lines: string[]): string {
  const parsed = lines.map((line) => ({ line, record: parseLogLine(line) }));
  const errors = parsed.flatMap(({ record }) => {
    if (record === undefined || !['error', 'fatal'].includes(record['log.level'])) return [];
    const { message, error: { message: cause = '' } = {} } = record;
    return [message.includes(cause) ? message : `${message}: ${cause}`];
  });
  if (errors.length > 0) return errors.slice(-2).join('; ');
  const plain = parsed.filter(({ record }) => record === undefined).map(({ line }) => line.trim());
  // An uncaught error prints its stack: the lines that say what happened are those without "at".
  const telling = plain.filter(
    (line) => line !== '' && !line.startsWith('at ') && !line.startsWith('Node.js v'),
  );
  return telling.slice(-4).join(' | ');
}

function parseLogLine(line: string): z.output<typeof logLine> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return logLine.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}
