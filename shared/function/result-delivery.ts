import type { Event } from '../events.ts';
import type { OutboxEntry } from '../stores/outbox.ts';
import type { StepOutcome, StepRun } from '../stores/steps.ts';
import type { RuntimeSettings } from './settings.ts';
import { backOffMs } from './sink.ts';
import { cameByBroker } from './successors.ts';

/** How long a delivery by a broker waits for an outcome that is a failure; then it is answered, and the work goes on. */
export const ANSWER_DELIVERY_WITHIN_MS = 2000;
/** As often as brokers try by default. */
const TRIES = 10;

/**
 * True for an event whose result is not the reply to its delivery: the delivery is answered early and empty, and the
 * result leaves by the outbox, which sends it until the broker has it. So no request is longer than one step's
 * beginning, and a request that is cut off, a dispatcher or a pod that is restarted loses nothing.
 *
 * Source: Knative Eventing 1.15, in-memory channels: the dispatcher answers a sender when all subscribers have answered
 * and their replies were dispatched in the same way, and cancels what is left when the sender hangs up.
 */
export function resultGoesToSink(settings: RuntimeSettings, event: Event): boolean {
  return settings.RESULT_DELIVERY === 'sink' && cameByBroker(event);
}

/**
 * What an outcome sends on. A failure that no delivery waits for any more is told by sending the event once more: that
 * delivery is answered from the ledger, or makes the next attempt, and the broker retries or buries it as its delivery
 * spec says.
 *
 * @param awaited whether a delivery still waits and will be answered with the outcome
 */
export function onwardEntries(
  settings: RuntimeSettings,
  run: StepRun,
  outcome: StepOutcome,
  awaited: boolean,
): { outcome: StepOutcome; entries: OutboxEntry[] } {
  if (!resultGoesToSink(settings, run.event)) return { outcome, entries: [] };
  if (outcome.status === 'succeeded') {
    const { result } = outcome;
    return { outcome, entries: result === undefined ? [] : [{ id: result.id, event: result }] };
  }
  if (awaited) return { outcome, entries: [] };
  const final = outcome.final || run.attempt >= TRIES;
  const delayMs = final ? 0 : backOffMs(run.attempt);
  return { outcome: { ...outcome, final }, entries: [redelivery(run, delayMs)] };
}

/** A run that is handed back: the broker brings its event to a pod that goes on. */
export function handOverEntries(settings: RuntimeSettings, run: StepRun): OutboxEntry[] {
  return resultGoesToSink(settings, run.event) ? [redelivery(run, 0)] : [];
}

function redelivery(run: StepRun, delayMs: number): OutboxEntry {
  return { id: `${run.id}-${run.attempt}`, event: run.event, delayMs };
}
