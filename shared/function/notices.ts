import type { Logger } from 'pino';
import type { Event } from '../events.ts';
import type { Database } from '../stores/database.ts';
import {
  type ClaimedNotice,
  claimNotices,
  postponeNotice,
  purgeNotices,
  refuseNotice,
  removeNotice,
  waitingNotices,
} from '../stores/outbox.ts';
import { pause, untilAborted } from './abort.ts';
import type { FunctionMetrics } from './metrics.ts';
import type { RuntimeSettings } from './settings.ts';
import { backOffMs, type Sink, type SinkAnswer } from './sink.ts';

/** Brings notices to the sink in the background. */
export interface NoticeSender {
  /** Says that there may be something to send. */
  wake(): void;
  /** Sends what it can, no longer than until the signal aborts. */
  stop(signal: AbortSignal): Promise<void>;
}

/** A sender of notices that no ledger keeps. */
export interface NoticeBuffer extends NoticeSender {
  add(notice: Event): void;
}

export interface NoticeRuntime {
  name: string;
  settings: RuntimeSettings;
  log: Logger;
  metrics: FunctionMetrics;
  sink: Sink | undefined;
}

const AT_ONCE = 16;
const KEPT_MS = 30 * 24 * 3_600_000;
const PURGE_EVERY_MS = 3_600_000;
/** What brokers do by default. */
const TRIES_FROM_MEMORY = 10;

/**
 * Sends the notices of a durable function from the outbox, its own and those that dead processes of the function
 * left there. Without a sink they stay, for 30 days.
 */
export function createOutboxSender(
  runtime: NoticeRuntime & { db: Database; onWaiting(served: Promise<void>): void },
): NoticeSender {
  const { db, name, sink, settings, log, metrics, onWaiting } = runtime;
  const claim = { function: name, limit: AT_ONCE, leaseMs: settings.LEASE_MS };

  /** Notices that this process will try again; while there are any, it should not end. */
  let postponed = new Set<string>();
  let waiting: PromiseWithResolvers<void> | undefined;
  const keepWhilePostponed = (): void => {
    if (postponed.size > 0 && waiting === undefined) {
      waiting = Promise.withResolvers();
      onWaiting(waiting.promise);
    }
    if (postponed.size === 0) {
      waiting?.resolve();
      waiting = undefined;
    }
  };

  /** Sends until nothing is due; gives the time until something is due again, as far as this sender knows. */
  const drain = async (): Promise<number> => {
    let soonestMs = settings.SWEEP_MS;
    while (sink !== undefined) {
      const claimed = await claimNotices(db, claim);
      const delays = await Promise.all(
        claimed.map(async (notice) => {
          const { outcome, againMs } = await deliverNotice(db, sink, notice, log);
          if (outcome !== 'waits') metrics.noticed(outcome);
          if (outcome === 'waits') postponed.add(notice.position);
          return againMs;
        }),
      );
      keepWhilePostponed();
      soonestMs = Math.min(soonestMs, ...delays.filter((delayMs) => delayMs !== undefined));
      if (claimed.length < AT_ONCE) break;
    }
    // By this process or another one: what has left the outbox is no reason to stay.
    if (postponed.size > 0) postponed = await waitingNotices(db, [...postponed]);
    keepWhilePostponed();
    return soonestMs;
  };

  let purgedAt = Number.NEGATIVE_INFINITY;
  const purge = async (): Promise<void> => {
    if (performance.now() - purgedAt < PURGE_EVERY_MS) return;
    purgedAt = performance.now();
    const lost = await purgeNotices(db, KEPT_MS);
    if (lost > 0) log.error(`${lost} notices found no sink within 30 days and were deleted`);
  };
  const work = async (): Promise<number> => {
    try {
      await purge();
      return await drain();
    } catch (error) {
      log.warn({ err: error }, 'notices could not be sent');
      return settings.SWEEP_MS;
    }
  };

  const loop = createLoop(work);
  return {
    wake: loop.wake,
    async stop(signal) {
      // What is not sent now is sent by the next process.
      await untilAborted(loop.stop().then(work), signal).catch(() => {});
    },
  };
}

/** Tries one claimed notice, and writes into the outbox what came of it. */
async function deliverNotice(
  db: Database,
  sink: Sink,
  notice: ClaimedNotice,
  log: Logger,
): Promise<{ outcome: 'sent' | 'refused' | 'waits'; againMs?: number }> {
  const answer = await sink(notice.event);
  if (answer.kind === 'taken') {
    await removeNotice(db, notice);
    return { outcome: 'sent' };
  }
  if (answer.kind === 'refused') {
    log.error({ notice: describe(notice.event) }, `a notice was refused for good: ${answer.reason}`);
    await refuseNotice(db, notice, answer.reason);
    return { outcome: 'refused' };
  }
  const againMs = Math.max(backOffMs(notice.tries), answer.retryAfterMs);
  log.warn({ notice: describe(notice.event) }, `a notice waits ${againMs} ms: ${answer.reason}`);
  await postponeNotice(db, notice, againMs);
  return { outcome: 'waits', againMs };
}

/**
 * Sends what functions of any name left in the outbox when their last process ended, and nobody has tried since.
 *
 * @returns the events that the sink took
 */
export async function sendLeftNotices(
  db: Database,
  sink: Sink,
  { overdueMs, leaseMs, log }: { overdueMs: number; leaseMs: number; log: Logger },
): Promise<Event[]> {
  const sent: Event[] = [];
  for (;;) {
    const claimed = await claimNotices(db, { limit: AT_ONCE, leaseMs, overdueMs });
    for (const notice of claimed) {
      if ((await deliverNotice(db, sink, notice, log)).outcome === 'sent') sent.push(notice.event);
    }
    if (claimed.length < AT_ONCE) return sent;
  }
}

/**
 * Sends the notices of a function without a ledger from memory: a limited number of them, of which the oldest
 * fall away first, and each after ten tries. Lost ones are counted.
 */
export function createNoticeBuffer(runtime: NoticeRuntime, functionLimit = 1000): NoticeBuffer {
  const { sink, settings, log, metrics } = runtime;
  const limit = settings.NOTICE_BUFFER ?? functionLimit;
  let waiting: { event: Event; tries: number }[] = [];
  let sending = 0;
  let pausedUntil = Number.NEGATIVE_INFINITY;

  const drop = (count: number, why: string) => {
    for (let dropped = 0; dropped < count; dropped++) metrics.noticed('dropped');
    if (count > 0) log.warn(`${count} notices were dropped: ${why}`);
  };
  const keepBounded = () => {
    const surplus = waiting.length - limit;
    if (surplus <= 0) return;
    waiting = waiting.slice(surplus);
    drop(surplus, 'the buffer is full');
  };

  /** What is to be tried again, and the time to wait before it; undefined for a notice that has left. */
  const settle = (answer: SinkAnswer, event: Event, tries: number) => {
    if (answer.kind === 'taken') metrics.noticed('sent');
    if (answer.kind === 'refused') {
      metrics.noticed('refused');
      log.error({ notice: describe(event) }, `a notice was refused for good: ${answer.reason}`);
    }
    if (answer.kind !== 'failed') return undefined;
    const delayMs = Math.max(backOffMs(tries), answer.retryAfterMs);
    if (tries < TRIES_FROM_MEMORY) return { again: { event, tries }, delayMs };
    drop(1, answer.reason);
    return { delayMs };
  };

  /** Sends until nothing waits or a try fails; gives the time until the next try. */
  const drain = async (): Promise<number | undefined> => {
    while (sink !== undefined && waiting.length > 0) {
      const pauseMs = pausedUntil - performance.now();
      if (pauseMs > 0) return pauseMs;
      const batch = waiting.splice(0, AT_ONCE);
      sending = batch.length;
      const failed = (
        await Promise.all(batch.map(async ({ event, tries }) => settle(await sink(event), event, tries + 1)))
      ).filter((each) => each !== undefined);
      sending = 0;
      // In the order they came in, whatever the order of the sink's answers: the oldest are the first to fall away.
      waiting.unshift(...failed.flatMap(({ again }) => again ?? []));
      pausedUntil = performance.now() + Math.max(0, ...failed.map(({ delayMs }) => delayMs));
      keepBounded();
    }
    return undefined;
  };

  const loop = createLoop(drain);
  const finish = async (signal: AbortSignal): Promise<void> => {
    await loop.stop();
    for (let againMs = await drain(); againMs !== undefined && !signal.aborted; againMs = await drain()) {
      await pause(againMs, signal);
    }
  };
  return {
    wake: loop.wake,
    add(event) {
      if (sink === undefined) {
        metrics.noticed('dropped');
        return;
      }
      waiting.push({ event, tries: 0 });
      keepBounded();
      loop.wake();
    },
    async stop(signal) {
      await untilAborted(finish(signal), signal).catch(() => {});
      drop(waiting.length + sending, 'the function stops and the sink did not take them');
    },
  };
}

/**
 * Works when woken, and again after the time that the work names; never twice at once.
 *
 * @param work resolves with the time until it is to be done again; `undefined`: not before it is woken. Never rejects
 */
function createLoop(work: () => Promise<number | undefined>): { wake(): void; stop(): Promise<void> } {
  let timer: NodeJS.Timeout | undefined;
  let working: Promise<void> | undefined;
  let wokenMeanwhile = false;
  let stopped = false;

  const once = async (): Promise<void> => {
    const againMs = await work();
    working = undefined;
    if (wokenMeanwhile) wake();
    else if (againMs !== undefined && !stopped) timer = setTimeout(wake, againMs).unref();
  };
  const wake = (): void => {
    if (stopped) return;
    wokenMeanwhile = working !== undefined;
    if (wokenMeanwhile) return;
    clearTimeout(timer);
    working = once();
  };
  return {
    wake,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await working;
    },
  };
}

function describe({ id, type }: Event): { id: string; type: string } {
  return { id, type };
}
