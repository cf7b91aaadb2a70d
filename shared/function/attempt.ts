import type { Logger } from 'pino';
import { DandelionError, isFinal, toDandelionError, toProblem } from '../errors.ts';
import type { Event } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { isDatabaseOutage, nameOutage } from '../stores/outage.ts';
import type { OutboxEntry } from '../stores/outbox.ts';
import {
  finishStep,
  heartbeatStep,
  type Lease,
  releaseStep,
  type StepOutcome,
  type StepProgress,
  type StepRun,
  writeProgress,
} from '../stores/steps.ts';
import { pause, untilAborted } from './abort.ts';
import { encodeBinary } from './cloudevents.ts';
import { invokeHandler, stepResult } from './context.ts';
import type { Slot } from './limits.ts';
import type { FunctionMetrics } from './metrics.ts';
import type { NoticeSender } from './notices.ts';
import { storedRequest } from './request.ts';
import { handOverEntries, onwardEntries } from './result-delivery.ts';
import type { RuntimeSettings } from './settings.ts';
import { continueTrace, type Trace } from './trace.ts';
import type { FunctionModule } from './types.ts';

const PROGRESS_INTERVAL_MS = 250;
const DEFAULT_STEP_LIMIT_MS = 3_600_000;
/** How long a database may be away when an outcome is there. */
const FINISH_WITHIN_MS = 600_000;
const LONGEST_FINISH_PAUSE_MS = 5000;

/** What every attempt of a process stands on. */
export interface AttemptRuntime {
  name: string;
  module: FunctionModule;
  db: Database;
  settings: RuntimeSettings;
  log: Logger;
  metrics: FunctionMetrics;
  /** Told when notices were written. */
  sender: NoticeSender;
}

/** One attempt under way in this process. */
export interface Attempt {
  run: StepRun;
  /** Resolves with the finished run; with `undefined` when it was handed over or taken away. */
  ended: Promise<StepRun | undefined>;
  /** Stops the work and hands the run back, so that another process takes it at once. */
  handOver(): void;
  /** One more request will be answered with the outcome. */
  join(): void;
  /** A request that joined waits no longer. False when the outcome is being written, and counts on it. */
  leave(): boolean;
}

/** Longest time one attempt may take. */
export function stepLimitMs(module: FunctionModule): number {
  return module.timeLimitMs ?? DEFAULT_STEP_LIMIT_MS;
}

/**
 * Works on a run whose lease this process holds, until it is finished, handed over or taken away.
 *
 * @param waiting requests that will be answered with the outcome
 */
export function startAttempt(runtime: AttemptRuntime, run: StepRun, slot: Slot, waiting: number): Attempt {
  const controller = new AbortController();
  const trace = continueTrace(run.event.traceparent);
  const log = runtime.log.child({
    'trace.id': trace.traceId,
    'span.id': trace.spanId,
    'faas.execution': run.id,
    'labels.attempt': String(run.attempt),
  });
  const audience = { waiting, settling: false };
  const work: Work = { ...runtime, run, slot, trace, log, controller, audience, notices: [] };
  return {
    run,
    ended: workOn(work),
    join() {
      audience.waiting += 1;
    },
    leave() {
      if (audience.settling) return false;
      audience.waiting -= 1;
      return true;
    },
    handOver: () =>
      controller.abort(new DandelionError('shutting-down', 'The function stops; another process goes on.')),
  };
}

interface Work extends AttemptRuntime {
  run: StepRun;
  slot: Slot;
  trace: Trace;
  controller: AbortController;
  audience: { waiting: number; settling: boolean };
  /** What the handler wants told, once its outcome stands. */
  notices: Event[];
}

async function workOn(work: Work): Promise<StepRun | undefined> {
  const { run, controller, log, db } = work;
  const startedAt = performance.now();
  const loseLease = () =>
    controller.abort(new DandelionError('lease-lost', 'Another attempt took this run over.'));
  const limitMs = stepLimitMs(work.module);
  const deadline = setTimeout(() => {
    controller.abort(new DandelionError('time-limit', `The step took longer than ${limitMs} ms.`));
  }, limitMs);
  const heartbeat = startHeartbeat(work, loseLease);
  const progress = createProgressWriter(db, run, loseLease);
  const ended = await outcomeOf(work, progress.report);
  work.audience.settling = true;
  clearTimeout(deadline);
  await progress.stop();
  const finished = await settle(work, ended).catch((error: unknown) => {
    log.error({ err: error }, 'the outcome of the run could not be written');
    return undefined;
  });
  heartbeat.stop();
  const durationMs = performance.now() - startedAt;
  const fields = {
    'event.action': 'step',
    'event.duration': Math.round(durationMs * 1e6),
    'event.outcome': finished?.status === 'succeeded' ? 'success' : 'failure',
  };
  log.info(fields, finished === undefined ? 'run left to another process' : `run ${finished.status}`);
  return finished;
}

type Ended = StepOutcome | 'released' | 'lost';

async function outcomeOf(work: Work, report: (progress: StepProgress) => void): Promise<Ended> {
  const { run, trace, log, controller, name } = work;
  const startedAt = performance.now();
  const handling = invokeHandler(work.module, {
    functionName: name,
    event: storedRequest(run.event),
    trace,
    log,
    signal: controller.signal,
    attempt: run.attempt,
    onProgress: report,
    onNotice: (notice) => work.notices.push(notice),
  }).finally(() => work.metrics.invoked('pubsub', (performance.now() - startedAt) / 1000));
  try {
    const answer = await untilAborted(work.slot.during(handling), controller.signal);
    const result = stepResult(name, run.event, trace, answer.value);
    if (result !== undefined) encodeBinary(result);
    return { status: 'succeeded', result };
  } catch (thrown) {
    // Whatever a handler throws once it was told to stop, the reason to stop is what ended it.
    const reason = controller.signal.aborted ? controller.signal.reason : nameOutage(thrown, work.db);
    const error = toDandelionError(reason);
    if (error.code === 'shutting-down') return 'released';
    if (error.code === 'lease-lost') return 'lost';
    work.metrics.failed(error);
    logFailure(log, error);
    return {
      status: error.code === 'cancelled' ? 'cancelled' : 'failed',
      problem: { ...toProblem(error), traceId: trace.traceId },
      final: isFinal(error),
    };
  }
}

function logFailure(log: Logger, error: DandelionError): void {
  const fields = { err: error.cause instanceof Error ? error.cause : error, 'error.code': error.code };
  if (error.status >= 500) log.error(fields, error.message);
  else log.warn(fields, error.message);
}

async function settle(work: Work, ended: Ended): Promise<StepRun | undefined> {
  const { db, run, log, settings } = work;
  if (ended === 'lost') return undefined;
  if (ended === 'released') {
    await releaseStep(db, run, handOverEntries(settings, run));
    work.sender.wake();
    return undefined;
  }
  const { outcome, entries } = onwardEntries(settings, run, ended, work.audience.waiting > 0);
  // An attempt that will be repeated emits its notices again.
  const stands = outcome.status === 'succeeded' || outcome.final;
  const notices = stands ? work.notices.map((event) => ({ id: event.id, event })) : [];
  if (!(await finishSurely(work, outcome, [...notices, ...entries]))) {
    log.warn('another attempt took the run over; this outcome is dropped');
    return undefined;
  }
  work.sender.wake();
  if (outcome.status === 'succeeded') {
    return { ...run, status: 'succeeded', final: true, result: outcome.result ?? null };
  }
  return { ...run, status: outcome.status, final: outcome.final, problem: outcome.problem };
}

/** A result may have cost hours, so a database that restarts is waited for; the heartbeat goes on meanwhile. */
async function finishSurely(
  work: Work,
  outcome: StepOutcome,
  entries: readonly OutboxEntry[],
): Promise<boolean> {
  const { signal } = work.controller;
  const deadline = performance.now() + FINISH_WITHIN_MS;
  for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, LONGEST_FINISH_PAUSE_MS)) {
    try {
      return await finishStep(work.db, work.run, outcome, entries);
    } catch (error) {
      if (!isDatabaseOutage(error) || performance.now() > deadline || signal.aborted) throw error;
      await pause(waitMs, signal);
    }
  }
}

/**
 * Prolongs the lease in time; gives it up for lost when the database says so. A database that is away says nothing: the
 * work of hours goes on, since whoever took the run over meanwhile is kept apart by the attempt's number.
 */
function startHeartbeat(work: Work, onLost: () => void): { stop(): void } {
  const { db, run, settings, log } = work;
  let beating = false;
  const beat = async () => {
    if (beating) return;
    beating = true;
    try {
      if (!(await heartbeatStep(db, run, settings.LEASE_MS))) onLost();
    } catch (error) {
      log.warn({ err: error }, 'the lease could not be prolonged');
    } finally {
      beating = false;
    }
  };
  const timer = setInterval(() => void beat(), settings.HEARTBEAT_MS);
  return { stop: () => clearInterval(timer) };
}

/** Writes the newest progress at most four times a second; handlers may report it for every photo. */
function createProgressWriter(db: Database, lease: Lease, onLost: () => void) {
  let pending: StepProgress | undefined;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> = Promise.resolve();
  let lastWrite = Number.NEGATIVE_INFINITY;
  const write = async () => {
    const progress = pending;
    pending = undefined;
    timer = undefined;
    if (progress === undefined) return;
    lastWrite = performance.now();
    // Losing a report costs a glance; the next one or the heartbeat meets the same trouble.
    const kept = await writeProgress(db, lease, progress).catch(() => true);
    if (!kept) onLost();
  };
  return {
    report(progress: StepProgress) {
      pending = progress;
      const dueMs = Math.max(0, lastWrite + PROGRESS_INTERVAL_MS - performance.now());
      timer ??= setTimeout(() => {
        writing = writing.then(write);
      }, dueMs);
    },
    async stop() {
      clearTimeout(timer);
      timer = undefined;
      writing = writing.then(write);
      await writing;
    },
  };
}
