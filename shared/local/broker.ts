import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { DandelionError, type Problem, toDandelionError, toProblem } from '../errors.ts';
import type { Event } from '../events.ts';
import { toJsonEvent } from '../function/cloudevents.ts';
import type { Trigger } from '../function/triggers.ts';
import { deadLetterEvent } from './dead-letter-event.ts';
import { backOffMs, deliver, type Outcome } from './delivery.ts';
import type { Journal } from './journal.ts';
import type { Processes } from './processes.ts';

/** An event a function refused for good, or that could not be brought to it in all tries. */
export interface DeadLetter {
  event: Event;
  function: string;
  attempts: number;
  problem: Problem;
}

type Failure = Exclude<Outcome, { kind: 'answered' }> & { retryAfterMs?: number };

/** The reply of a function, back in the broker. */
export interface Result {
  function: string;
  /** What the function was given. */
  event: Event;
  result: Event;
}

export interface BrokerOptions {
  triggers: Trigger[];
  processes: Processes;
  journal: Journal;
  logger: Logger;
  /** Bearer token of the functions, where they ask for one. */
  token?: string;
  /** Longest wait between two tries; default 5 s: a person is waiting. */
  longestWaitMs?: number;
}

/** Routes events to functions as Knative's broker does: by Triggers, at least once, unordered. */
export interface Broker {
  readonly triggers: readonly Trigger[];
  /**
   * Accepts an event; when this resolves it is on disk and survives the end of the process. While the broker stops,
   * that is all it does: functions tell of things until their end.
   */
  publish(event: Event): Promise<void>;
  /** Brings an event to one function whatever the Triggers say; its reply is routed on. */
  send(event: Event, functionName: string): Promise<void>;
  /** Publishes again what an earlier process accepted and did not finish; returns how many. */
  resume(): Promise<number>;
  onAccepted(listener: (event: Event) => void): () => void;
  onResult(listener: (result: Result) => void): () => void;
  onDeadLetter(listener: (letter: DeadLetter) => void): () => void;
  /** Resolves when nothing is on its way. */
  idle(): Promise<void>;
  /** Takes and sends no more; resolves when what is on its way has been answered. What is left is resumed later. */
  stop(): Promise<void>;
}

/** Makes the broker of a platform; nothing is on its way until something is published or resumed. */
export function createBroker(options: BrokerOptions): Broker {
  const { triggers, processes, journal, logger, token, longestWaitMs = 5000 } = options;
  const accepted = createListeners<Event>();
  const results = createListeners<Result>();
  const deadLetters = createListeners<DeadLetter>();
  const underWay = new Set<Promise<void>>();
  const deliveries = new Map<string, Promise<boolean>>();
  const stopping = new AbortController();

  const track = (work: Promise<void>): void => {
    const tracked = work
      .catch((error: unknown) => logger.error({ err: error }, 'the broker failed'))
      .finally(() => underWay.delete(tracked));
    underWay.add(tracked);
  };

  /** The same event on its way to the same function is one delivery. */
  const settle = (event: Event, trigger: Trigger): Promise<boolean> => {
    const key = JSON.stringify([trigger.function, event.source, event.id]);
    const known = deliveries.get(key);
    if (known !== undefined) return known;
    const settling = bringTo(event, trigger).finally(() => deliveries.delete(key));
    deliveries.set(key, settling);
    return settling;
  };

  /** Resolves true when the delivery is settled, false when it was broken off and must be taken up later. */
  const bringTo = async (event: Event, trigger: Trigger): Promise<boolean> => {
    for (let attempt = 1; ; attempt++) {
      if (stopping.signal.aborted) return false;
      const outcome = await tryOnce(event, trigger);
      if (outcome.kind === 'answered') return answered(event, trigger.function, outcome.reply);
      if (stopping.signal.aborted) return false;
      if (outcome.kind === 'refused' || attempt > trigger.delivery.retry) {
        const letter = { event, function: trigger.function, attempts: attempt, problem: outcome.problem };
        const isBuried = outcome.kind === 'refused' && outcome.isBuried === true;
        return bury(letter, trigger, isBuried);
      }
      logger.warn(
        { event: { action: 'delivery-retry' }, 'error.code': outcome.problem.code },
        `${trigger.function} could not take ${event.type} (try ${attempt}): ${outcome.problem.detail}`,
      );
      await backOff(trigger, attempt, outcome);
    }
  };

  const backOff = async ({ delivery }: Trigger, attempt: number, { retryAfterMs = 0 }: Failure) => {
    const waitMs = Math.min(Math.max(backOffMs(delivery, attempt - 1), retryAfterMs), longestWaitMs);
    await sleep(waitMs, undefined, { signal: stopping.signal }).catch(() => {});
  };

  const tryOnce = (event: Event, trigger: Trigger): Promise<Outcome> =>
    trigger.runs === 'job' && processes.runJob !== undefined
      ? runAsJob(event, trigger.function, processes.runJob)
      : attemptDelivery(event, { function: trigger.function, path: '/' });

  const attemptDelivery = async (
    event: Event,
    target: { function: string; path: string },
  ): Promise<Outcome> => {
    try {
      const { url, release } = await processes.acquire(target.function);
      return await deliver(event, url, { token, path: target.path }).finally(release);
    } catch (error) {
      const { retryAfterMs, code } = toDandelionError(error);
      // It starts no better before somebody has changed its settings.
      if (code === 'bad-config') return { kind: 'refused', problem: toProblem(error) };
      return { kind: 'failed', problem: toProblem(error), retryAfterMs };
    }
  };

  const answered = async (event: Event, name: string, reply: Event | undefined): Promise<boolean> => {
    if (reply === undefined) return true;
    results.emit({ function: name, event, result: reply });
    await accept(reply);
    return true;
  };

  /** As {@link bringTo}: the event stays in the journal until its dead letter is taken. */
  const bury = async (letter: DeadLetter, trigger: Trigger, isBuried: boolean): Promise<boolean> => {
    const { event, problem } = letter;
    logger.error(
      { event: { action: 'dead-letter' }, 'error.code': problem.code },
      `${letter.function} did not take ${event.type} ${event.id} in ${letter.attempts} tries: ${problem.detail}`,
    );
    const settled = isBuried || (await storeDeadLetter(letter, trigger));
    if (settled) deadLetters.emit(letter);
    return settled;
  };

  const storeDeadLetter = async (letter: DeadLetter, trigger: Trigger): Promise<boolean> => {
    const { deadLetterSink: sink } = trigger.delivery;
    const isThere = sink !== undefined && (await processes.names()).includes(sink.function);
    if (!isThere) return true;
    for (let attempt = 1; ; attempt++) {
      if (stopping.signal.aborted) return false;
      const outcome = await attemptDelivery(deadLetterEvent(letter), sink);
      if (outcome.kind === 'answered') return true;
      const detail = `${sink.function} did not take a dead letter (try ${attempt}): ${outcome.problem.detail}`;
      if (outcome.kind === 'refused') {
        logger.error({ 'event.original': JSON.stringify(toJsonEvent(letter.event)) }, detail);
        return true;
      }
      logger.warn({ event: { action: 'dead-letter-retry' } }, detail);
      await backOff(trigger, attempt, outcome);
    }
  };

  const route = async (event: Event, targets: Trigger[]): Promise<void> => {
    const settled = await Promise.all(targets.map((trigger) => settle(event, trigger)));
    if (settled.every(Boolean)) await journal.remove(event);
  };

  /** Journals first. While stopping the event only goes to disk. */
  const accept = async (given: Event): Promise<void> => {
    // As Knative's ingress: the ledger tells by it that the broker carries the chain on.
    const event = { knativearrivaltime: new Date().toISOString(), ...given };
    const targets = triggers.filter((trigger) => trigger.matches(event));
    if (targets.length > 0) await journal.add(event);
    accepted.emit(event);
    if (targets.length > 0 && !stopping.signal.aborted) track(route(event, targets));
  };

  return {
    triggers,
    publish: accept,
    async send(event, functionName) {
      const leading = triggers.filter((each) => each.function === functionName);
      const trigger = leading.find((each) => each.matches(event)) ?? leading[0];
      if (trigger !== undefined) track(settle(event, trigger).then(() => {}));
    },
    async resume() {
      const left = await journal.list();
      for (const event of left) await accept(event);
      return left.length;
    },
    onAccepted: accepted.add,
    onResult: results.add,
    onDeadLetter: deadLetters.add,
    async idle() {
      while (underWay.size > 0) await Promise.all(underWay);
    },
    async stop() {
      stopping.abort();
      while (underWay.size > 0) await Promise.all(underWay);
    },
  };
}

/** A job sends its result to the broker itself; how it ended says what became of the event. */
async function runAsJob(
  event: Event,
  name: string,
  runJob: NonNullable<Processes['runJob']>,
): Promise<Outcome> {
  try {
    const { code, signal, lastWords } = await runJob(name, event);
    if (code === 0) return { kind: 'answered', reply: undefined };
    const how = signal ?? `exit code ${code}`;
    const words = lastWords === '' ? '' : `: ${lastWords}`;
    const problem = toProblem(
      new DandelionError('upstream-unavailable', `The job of ${name} ended with ${how}${words}.`),
    );
    return code === 2 ? { kind: 'refused', problem, isBuried: true } : { kind: 'failed', problem };
  } catch (error) {
    return { kind: 'failed', problem: toProblem(error) };
  }
}

function createListeners<Value>() {
  const listeners = new Set<(value: Value) => void>();
  return {
    add(listener: (value: Value) => void): () => void {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    emit(value: Value): void {
      for (const listener of listeners) listener(value);
    },
  };
}
