import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { count, type Environment, readConfig } from '../config.ts';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { openDatabase } from '../stores/database.ts';
import { saveDeadLetter } from '../stores/dead-letters.ts';
import { pause } from './abort.ts';
import { decodeEvents, encodeBinary, fromJsonEvent } from './cloudevents.ts';
import { createFunctionServer } from './server.ts';
import { readRuntimeSettings } from './settings.ts';
import { backOffMs, createSink, type Sink } from './sink.ts';
import type { Telemetry } from './telemetry.ts';
import type { FunctionModule } from './types.ts';

/**
 * What a job's process ends with: 0 when the result is with the broker, or there is none; 1 when another try is
 * worth it; 2 when there is no use in one, and the event lies with the dead letters.
 */
export type JobExit = 0 | 1 | 2;

/** Set by a JobSink: where the one event of this process is. */
export const jobSettings = z.object({ K_EVENT_PATH: z.string().optional() });

const settings = z.object({
  K_EVENT_PATH: z.string(),
  DATABASE_URL: z.string({ error: 'set it: a job works through the ledger' }),
  /** The manifest's `backoffLimit` and one: what fails so often is a dead letter. */
  JOB_TRIES: count(1).default(4),
  /** No answer waits for a job, so it may take longer than any request. */
  JOB_LIMIT_MS: count(1).default(24 * 3_600_000),
  /** How long the broker may be away when the result is there. */
  JOB_SEND_WITHIN_MS: count(1).default(600_000),
});

/**
 * A broker on channels in memory answers when every step behind it has taken the event; who hangs up before cuts its
 * delivery off.
 */
const ANSWER_WITHIN_MS = 240_000;

/** How long one look at the run waits for its end. */
const NEWS_WITHIN_S = 5;
/** After that another try of the Job is worth more than waiting. */
const LEDGER_AWAY_MS = 600_000;

const problemDocument = z.looseObject({ status: z.number(), code: z.string(), detail: z.string() });
const runDocument = z.object({
  status: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
  attempt: z.number(),
  result: z.unknown(),
  problem: problemDocument.nullable(),
});
type Run = z.output<typeof runDocument>;

export interface JobOptions {
  name: string;
  env: Environment;
  logger: Logger;
  telemetry?: Telemetry | undefined;
  /** Aborted when the process is told to stop: the run is handed back, and another process goes on with it. */
  stopping: AbortSignal;
}

/**
 * Works on the one event that a JobSink left in a file, by the handler, ledger and limits of the function's server, and
 * brings the result to the broker. A repeat of the Job finds the run in the ledger: what was done is sent, not done again.
 *
 * Source: Knative Eventing 1.15, JobSink: the event in structured mode in the file of K_EVENT_PATH, no reply.
 *
 * @throws DandelionError `bad-config` for settings or a file that no further try would mend
 */
export async function runJob(module: FunctionModule, options: JobOptions): Promise<JobExit> {
  const given = readConfig(settings, options.env);
  // The result is this process's own to send, after the ledger has it.
  const env = { ...options.env, PORT: '0', HOST: '127.0.0.1', RESULT_DELIVERY: 'reply' };
  const runtimeSettings = readRuntimeSettings(env, module);
  const sink = createSink(runtimeSettings, { answerWithinMs: ANSWER_WITHIN_MS, signal: options.stopping });
  if (sink === undefined) {
    throw new DandelionError(
      'bad-config',
      'Set K_SINK to the address of the broker, which takes the result.',
    );
  }
  const event = await readEvent(given.K_EVENT_PATH);
  const server = createFunctionServer(
    { ...module, timeLimitMs: given.JOB_LIMIT_MS },
    { ...options, env, takesOver: false },
  );
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= server.close();
    return closed;
  };
  const stop = () => void close().catch(() => {});
  options.stopping.addEventListener('abort', stop, { once: true });
  try {
    const { url } = await server.listen();
    await server.init();
    const run = await follow(url, event, {
      token: runtimeSettings.DANDELION_TOKEN,
      stopping: options.stopping,
    });
    if (run === undefined) return 1;
    if (run.status === 'succeeded') {
      if (run.result === null) return 0;
      return await send(sink, fromJsonEvent(run.result), given.JOB_SEND_WITHIN_MS, options);
    }
    return await giveUp(run, event, { ...options, given });
  } finally {
    options.stopping.removeEventListener('abort', stop);
    await close();
  }
}

async function readEvent(path: string): Promise<Event> {
  const bytes = await readEventFile(path).catch((cause: unknown) => {
    throw new DandelionError('bad-config', `K_EVENT_PATH names ${path}, which cannot be read.`, { cause });
  });
  const [event] = decodeEvents({ 'content-type': 'application/cloudevents+json' }, bytes)?.events ?? [];
  if (event === undefined) throw new DandelionError('bad-config', `${path} holds no CloudEvent.`);
  return event;
}

/** Knative Eventing 1.15.0 names the folder that the file is in (cmd/jobsink/main.go). */
async function readEventFile(path: string): Promise<Buffer> {
  return readFile((await stat(path)).isDirectory() ? join(path, 'event') : path);
}

/** The outcome of the run, wherever it is worked out; `undefined` when this process was told to stop before. */
async function follow(
  url: string,
  event: Event,
  { token, stopping }: { token: string | undefined; stopping: AbortSignal },
): Promise<Run | undefined> {
  const authorization: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };
  const { headers, body } = encodeBinary(event);
  const accepted = await fetch(url, {
    method: 'POST',
    headers: { ...headers, ...authorization, prefer: 'respond-async' },
    body: body === undefined ? null : new Uint8Array(body),
  });
  const location = accepted.headers.get('location');
  if (accepted.status !== 202 || location === null) {
    const problem = problemDocument.parse(await accepted.json());
    return { status: 'failed', attempt: 0, result: null, problem };
  }
  await accepted.arrayBuffer();
  return await outcomeOf(new URL(`${location}?wait=${NEWS_WITHIN_S}s`, url), authorization, stopping);
}

/** Asks until the run has ended; trouble of the ledger passes, and the work goes on meanwhile. */
async function outcomeOf(
  address: URL,
  headers: Record<string, string>,
  stopping: AbortSignal,
): Promise<Run | undefined> {
  let failures = 0;
  let answeredAt = performance.now();
  while (!stopping.aborted) {
    const answer = await fetch(address, { headers, signal: stopping }).catch((error: unknown) => {
      if (stopping.aborted) return undefined;
      throw error;
    });
    if (answer === undefined) return undefined;
    if (answer.ok) {
      const run = runDocument.parse(await answer.json());
      if (run.status !== 'queued' && run.status !== 'running') return run;
      failures = 0;
      answeredAt = performance.now();
      continue;
    }
    const problem = problemDocument.parse(await answer.json());
    const isOver = answer.status < 500 || performance.now() - answeredAt > LEDGER_AWAY_MS;
    if (isOver) return { status: 'failed', attempt: 0, result: null, problem };
    failures += 1;
    await pause(backOffMs(failures), stopping);
  }
  return undefined;
}

async function send(
  sink: Sink,
  result: Event,
  withinMs: number,
  { logger, stopping }: JobOptions,
): Promise<JobExit> {
  const deadline = performance.now() + withinMs;
  for (let tries = 1; ; tries++) {
    const answer = await sink(result);
    if (answer.kind === 'taken') return 0;
    const detail = `the broker did not take the result (try ${tries}): ${answer.reason}`;
    if (answer.kind === 'refused') {
      logger.error(detail);
      return 2;
    }
    logger.warn(detail);
    if (stopping.aborted || performance.now() > deadline) return 1;
    await pause(Math.max(backOffMs(tries), answer.retryAfterMs), stopping);
  }
}

/** A broker buries what it cannot deliver; nobody does it for a Job, since its JobSink took the event long ago. */
async function giveUp(
  run: Run,
  event: Event,
  { name, logger, given }: JobOptions & { given: z.output<typeof settings> },
): Promise<JobExit> {
  const { status = 500, code = 'internal', detail = '' } = run.problem ?? {};
  const isFinal = run.status === 'failed' && status < 500;
  if (!isFinal && run.attempt < given.JOB_TRIES) return 1;
  const db = await openDatabase(given.DATABASE_URL);
  const id = await saveDeadLetter(db, { event, destination: name, status, cause: `${code}: ${detail}` });
  logger.error({ event: { action: 'dead-letter', id: event.id } }, `${detail} (dead letter ${id})`);
  return 2;
}
