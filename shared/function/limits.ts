import { monitorEventLoopDelay } from 'node:perf_hooks';
import { DandelionError } from '../errors.ts';
import type { RuntimeSettings } from './settings.ts';

/** One place among those that may work at the same time. */
export interface Slot {
  /** Keeps the place taken until the work settles, even when the client has left. */
  during<Result>(work: Promise<Result>): Promise<Result>;
  /** Ends the request's own claim on the place. */
  leave(): void;
}

/** Refuses work the process cannot take on. */
export interface Limits {
  readonly inFlight: number;
  /** @throws DandelionError `overloaded` when every place is taken or the event loop lags */
  enter(): Slot;
  /** True when `enter` would let work in now. */
  hasRoom(): boolean;
  /** A place for work that is taken on already, even if it is one too many. */
  take(): Slot;
  /** Starts to watch the event loop; loading models may block it before. */
  watchEventLoop(): void;
  /** Resolves when nothing is in flight. */
  idle(): Promise<void>;
  close(): void;
}

const MONITOR_RESOLUTION_MS = 10;
const DEFAULT_MAX_IN_FLIGHT = 64;

/** @param maxInFlight places for requests and attempts together; `take` alone may go beyond */
export function createLimits(
  settings: Pick<RuntimeSettings, 'EVENT_LOOP_DELAY_LIMIT_MS' | 'EVENT_LOOP_SAMPLE_MS'>,
  maxInFlight = DEFAULT_MAX_IN_FLIGHT,
): Limits {
  const eventLoop = watchDelay(settings.EVENT_LOOP_DELAY_LIMIT_MS, settings.EVENT_LOOP_SAMPLE_MS);
  const waiting: (() => void)[] = [];
  let inFlight = 0;

  const take = (): Slot => {
    inFlight += 1;
    let claims = 1;
    let left = false;
    const drop = () => {
      claims -= 1;
      if (claims > 0) return;
      inFlight -= 1;
      if (inFlight === 0) for (const resolve of waiting.splice(0)) resolve();
    };
    return {
      during(work) {
        claims += 1;
        return work.finally(drop);
      },
      leave() {
        if (!left) drop();
        left = true;
      },
    };
  };

  return {
    get inFlight() {
      return inFlight;
    },
    enter() {
      if (inFlight >= maxInFlight) {
        throw new DandelionError('overloaded', `${maxInFlight} requests are being worked; try again soon.`, {
          retryAfterMs: 1000,
        });
      }
      if (eventLoop.lags()) {
        throw new DandelionError('overloaded', 'The process is too busy to answer in time; try again soon.', {
          retryAfterMs: 1000,
        });
      }
      return take();
    },
    hasRoom: () => inFlight < maxInFlight && !eventLoop.lags(),
    take,
    watchEventLoop: () => eventLoop.start(),
    idle: () => (inFlight === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    close: () => eventLoop.stop(),
  };
}

/** The loop lags when its mean delay was above the limit in two samples in a row: one long task is no overload. */
function watchDelay(limitMs: number, sampleMs: number) {
  const monitor = monitorEventLoopDelay({ resolution: MONITOR_RESOLUTION_MS });
  let timer: NodeJS.Timeout | undefined;
  let samplesAbove = 0;
  const sample = () => {
    const delayMs = monitor.mean / 1e6 - MONITOR_RESOLUTION_MS;
    samplesAbove = delayMs > limitMs ? samplesAbove + 1 : 0;
    monitor.reset();
  };
  return {
    start() {
      monitor.enable();
      timer = setInterval(sample, sampleMs).unref();
    },
    lags: () => samplesAbove >= 2,
    stop() {
      clearInterval(timer);
      monitor.disable();
    },
  };
}
