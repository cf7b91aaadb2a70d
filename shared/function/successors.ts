import { type Event, runIdOf } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { isDeadLetter } from '../stores/dead-letters.ts';
import { findStep, listSucceeded, listUnfinished } from '../stores/steps.ts';
import type { Trigger } from './triggers.ts';

/**
 * True for an event that came through a broker: its result is the broker's to carry on. Whoever else calls a step
 * (Airflow, a person) decides himself what comes next.
 *
 * Source: Knative Eventing, every event that enters a broker gets the extension `knativearrivaltime`.
 */
export function cameByBroker(event: Event): boolean {
  return event.knativearrivaltime !== undefined;
}

/**
 * Sends an event to the broker.
 *
 * @returns false when the broker refuses it for good, which is no reason to leave the others
 * @throws DandelionError when the broker takes nothing now
 */
export type SendAgain = (event: Event) => Promise<boolean>;

/**
 * Sends results again that a broker should have brought to their next step and did not: succeeded, older than the
 * grace period, with a Trigger that wants them, without a run there and without a dead letter. One that arrives twice
 * is one run.
 *
 * @returns the results that were sent
 */
export async function resendLostResults(
  db: Database,
  triggers: readonly Trigger[],
  send: SendAgain,
  { graceMs }: { graceMs: number },
): Promise<Event[]> {
  const sent: Event[] = [];
  for (const { event, result, finishedAt } of await listSucceeded(db)) {
    const ageMs = Date.now() - Date.parse(finishedAt ?? '');
    if (result === null || !cameByBroker(event) || ageMs < graceMs) continue;
    if (!(await lacksSuccessor(db, triggers, result)) || (await isDeadLetter(db, result))) continue;
    if (await send(result)) sent.push(result);
  }
  return sent;
}

/**
 * Sends the events of runs again that nobody works on: their pods are gone and no other one of the function is there to
 * take them over. The delivery starts one.
 *
 * @returns the events that were sent
 */
export async function resendLeftRuns(
  db: Database,
  send: SendAgain,
  { graceMs }: { graceMs: number },
): Promise<Event[]> {
  const sent: Event[] = [];
  for (const { event, abandoned, updatedAt } of await listUnfinished(db)) {
    if (!abandoned || !cameByBroker(event) || Date.now() - Date.parse(updatedAt) < graceMs) continue;
    if (await send(event)) sent.push(event);
  }
  return sent;
}

async function lacksSuccessor(db: Database, triggers: readonly Trigger[], result: Event): Promise<boolean> {
  for (const trigger of triggers.filter((each) => each.matches(result))) {
    const id = runIdOf(trigger.function, result.source, result.id);
    if ((await findStep(db, trigger.function, id)) === undefined) return true;
  }
  return false;
}
