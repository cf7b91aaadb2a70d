import { DandelionError, toProblem } from '../errors.ts';
import { type Event, runIdOf } from '../events.ts';
import {
  CRASH_LIMIT,
  claimStep,
  eventDigest,
  findStep,
  giveUpSteps,
  purgeSteps,
  retryStep,
  type StepRun,
  takeOverStep,
  takeOverSteps,
} from '../stores/steps.ts';
import { pause } from './abort.ts';
import { type Attempt, type AttemptRuntime, startAttempt, stepLimitMs } from './attempt.ts';
import type { Limits, Slot } from './limits.ts';
import { createOutboxSender } from './notices.ts';
import { createPodKeeper } from './pod.ts';
import type { Sink } from './sink.ts';

const KEPT_MS = 30 * 24 * 3_600_000;
const PURGE_EVERY_MS = 3_600_000;
/** Fewer than a pod could take, so that several pods share what a dead one left. */
const TAKEN_PER_SWEEP = 4;
const EARLY_POLL_MS = 200;
/** A waiter outlives the attempt's own limit, to see its outcome. */
const WAIT_BEYOND_LIMIT_MS = 5000;

export interface DurableRuntime extends Omit<AttemptRuntime, 'sender'> {
  sink: Sink | undefined;
  limits: Limits;
  /** Aborted when the function begins to stop. */
  stopping: AbortSignal;
  /** Aborted when its grace period is over. */
  cutOff: AbortSignal;
}

/** A run and whether it was there before: `reused` is false for the one request that started the work. */
export interface Accepted {
  run: StepRun;
  reused: boolean;
}

/** The durable steps of one function in one process. */
export interface StepRunner {
  /** Starts work on an event, or finds the run it already has. */
  accept(event: Event, slot: Slot): Promise<Accepted>;
  /** Waits for the outcome, wherever it is worked out. */
  outcome(id: string, signal: AbortSignal): Promise<StepRun>;
  /**
   * Waits for the outcome no longer than that. `undefined`: it is not there yet, and a failure will be sent on by
   * whoever works on it.
   */
  earlyOutcome(id: string, withinMs: number, signal: AbortSignal): Promise<StepRun | undefined>;
  /** The run as it stands; takes it over when nobody works on it. */
  look(id: string): Promise<StepRun>;
  /** Waits until status or attempt differ, the run ends, or the time is up. */
  change(seen: StepRun, waitMs: number, signal: AbortSignal): Promise<StepRun>;
  /** Starts a new attempt unless one is under way. */
  retry(id: string, slot: Slot): Promise<Accepted>;
  /** Takes over what dead processes left, now and from time to time. */
  startSweep(): void;
  stopSweep(): void;
  /** Hands every run back that is still worked on, and waits until the ledger says so. */
  handOver(): Promise<void>;
  /** Waits until no notice of this process waits for another try, or the time is up. */
  outboxSent(waitMs: number, signal: AbortSignal): Promise<void>;
  /** Sends notices that wait, no longer than until the signal aborts; the rest is left to other processes. */
  flushNotices(signal: AbortSignal): Promise<void>;
}

/** True when a run has an outcome. */
export function hasEnded(run: StepRun): boolean {
  return run.status !== 'queued' && run.status !== 'running';
}

/** Makes the runner of a durable function: one run an event, worked by one process at a time, answered for good. */
export function createStepRunner(runtime: DurableRuntime): StepRunner {
  const { db, name, settings, limits, log, stopping, cutOff } = runtime;
  const active = new Map<string, Attempt>();
  const lease = { function: name, owner: settings.INSTANCE_ID, leaseMs: settings.LEASE_MS };

  const keeper = createPodKeeper(settings, log, stopping);
  let outbox: Promise<void> = Promise.resolve();
  const onWaiting = (sent: Promise<void>): void => {
    outbox = sent;
    keeper.during('/outbox', sent);
  };
  const sender = createOutboxSender({ ...runtime, onWaiting });

  const start = (run: StepRun, slot: Slot, waiting = 0): void => {
    const attempt = startAttempt({ ...runtime, sender }, run, slot, waiting);
    active.set(run.id, attempt);
    if (cutOff.aborted) attempt.handOver();
    keeper.during(`/runs/${run.id}`, attempt.ended);
    void attempt.ended.finally(() => active.delete(run.id));
  };

  const find = async (id: string): Promise<StepRun> => {
    const run = await findStep(db, name, id);
    if (run !== undefined) return run;
    throw new DandelionError('run-unknown', `There is no run ${id} of ${name}; runs are kept for 30 days.`);
  };

  /** Takes work from the ledger if there is room. Looking takes no place: most looks find nothing. */
  const takeOver = async (take: () => Promise<StepRun | undefined>): Promise<StepRun | undefined> => {
    if (stopping.aborted || !limits.hasRoom()) return undefined;
    const run = await take();
    if (run === undefined) return undefined;
    log.info({ 'faas.execution': run.id }, `attempt ${run.attempt} takes over a run that was left`);
    const slot = limits.take();
    start(run, slot);
    slot.leave();
    return run;
  };

  const adopt = async (run: StepRun): Promise<StepRun> => {
    // A lease can expire while this very process works on, when it was held up; then it only needs prolonging.
    if (!run.abandoned || active.has(run.id)) return run;
    return (await takeOver(() => takeOverStep(db, { ...lease, id: run.id }))) ?? run;
  };

  const sweep = async (): Promise<void> => {
    for (let taken = 0; taken < TAKEN_PER_SWEEP; taken++) {
      const except = [...active.keys()];
      const run = await takeOver(async () => (await takeOverSteps(db, { ...lease, limit: 1, except }))[0]);
      if (run === undefined) break;
    }
    const crashed = new DandelionError(
      'worker-died',
      `The process working on this event died ${CRASH_LIMIT} times in a row; look at its log, then retry the run.`,
    );
    const givenUp = await giveUpSteps(db, name, toProblem(crashed));
    if (givenUp > 0) log.error(`${givenUp} runs were given up: their processes died again and again`);
  };
  const sweeper = every(settings.SWEEP_MS, sweep, (error) => log.warn({ err: error }, 'the sweep failed'));
  const purger = every(
    PURGE_EVERY_MS,
    async () => void (await purgeSteps(db, KEPT_MS)),
    (error) => log.warn({ err: error }, 'old runs could not be deleted'),
  );

  return {
    async accept(event, slot) {
      const here = active.get(runIdOf(name, event.source, event.id));
      if (here !== undefined && eventDigest(here.run.event) === eventDigest(event)) {
        here.join();
        return { run: here.run, reused: true };
      }
      const { claimed, run } = await claimStep(db, { ...lease, event });
      if (claimed) start(run, slot, 1);
      return { run, reused: !claimed };
    },

    async outcome(id, signal) {
      const deadline = performance.now() + stepLimitMs(runtime.module) + WAIT_BEYOND_LIMIT_MS;
      const cut = AbortSignal.any([signal, cutOff]);
      for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 1.5, 1000)) {
        const ended = await ending(active.get(id), cut, deadline - performance.now());
        const run = ended ?? (await adopt(await find(id)));
        if (hasEnded(run)) return run;
        cut.throwIfAborted();
        if (performance.now() > deadline) {
          throw new DandelionError(
            'time-limit',
            `The run ${id} is not finished yet; look at it under /runs.`,
          );
        }
        if (!active.has(id)) await pause(pauseMs, cut);
      }
    },

    async earlyOutcome(id, withinMs, signal) {
      const deadline = performance.now() + withinMs;
      const cut = AbortSignal.any([signal, cutOff]);
      for (;;) {
        const here = active.get(id);
        const ended = await ending(here, cut, deadline - performance.now());
        if (ended !== undefined) return ended;
        if (here?.leave() === false) await here.ended;
        const run = await adopt(await find(id));
        if (hasEnded(run)) return run;
        // Whoever brought the event brings it to another process then.
        cutOff.throwIfAborted();
        if (signal.aborted || here !== undefined || performance.now() > deadline) return undefined;
        if (!active.has(id)) await pause(EARLY_POLL_MS, cut);
      }
    },

    look: async (id) => adopt(await find(id)),

    async change(seen, waitMs, signal) {
      const deadline = performance.now() + waitMs;
      const cut = AbortSignal.any([signal, stopping]);
      for (let run = seen, pauseMs = 50; ; pauseMs = Math.min(pauseMs * 1.5, 1000)) {
        const remainingMs = deadline - performance.now();
        const same = run.status === seen.status && run.attempt === seen.attempt;
        if (!same || hasEnded(run) || remainingMs <= 0 || cut.aborted) return run;
        const here = active.get(seen.id);
        if (here === undefined) await pause(Math.min(pauseMs, remainingMs), cut);
        else await ending(here, cut, remainingMs);
        run = await adopt(await find(seen.id));
      }
    },

    async retry(id, slot) {
      const run = active.has(id) ? undefined : await retryStep(db, { ...lease, id });
      if (run === undefined) return { run: await find(id), reused: true };
      start(run, slot);
      return { run, reused: false };
    },

    startSweep() {
      sweeper.start();
      purger.start();
      sender.wake();
    },
    stopSweep() {
      sweeper.stop();
      purger.stop();
    },
    async handOver() {
      const attempts = [...active.values()];
      for (const attempt of attempts) attempt.handOver();
      await Promise.all(attempts.map((attempt) => attempt.ended));
    },
    async outboxSent(waitMs, signal) {
      const over = new AbortController();
      await Promise.race([outbox, pause(waitMs, AbortSignal.any([signal, stopping, over.signal]))]);
      over.abort();
    },
    flushNotices: (signal) => sender.stop(signal),
  };
}

/** The outcome of an attempt under way here; `undefined` when there is none, or the wait ended before it. */
async function ending(
  attempt: Attempt | undefined,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<StepRun | undefined> {
  if (attempt === undefined || timeoutMs <= 0) return undefined;
  const over = new AbortController();
  const waited = pause(timeoutMs, AbortSignal.any([signal, over.signal]));
  const run = await Promise.race([attempt.ended, waited.then(() => undefined)]);
  over.abort();
  return run;
}

/** Runs a task now and then every so often, never twice at once, without keeping the process alive. */
function every(intervalMs: number, task: () => Promise<void>, onError: (error: unknown) => void) {
  let timer: NodeJS.Timeout | undefined;
  let busy = false;
  const run = async () => {
    if (busy) return;
    busy = true;
    await task().catch(onError);
    busy = false;
  };
  return {
    start() {
      void run();
      timer = setInterval(() => void run(), intervalMs).unref();
    },
    stop: () => clearInterval(timer),
  };
}
