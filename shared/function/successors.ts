import { type Event, runIdOf } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { deadAmong } from '../stores/dead-letters.ts';
import { listUnfinished } from '../stores/steps.ts';
import { knownSteps, pagesOfSucceeded } from '../stores/succeeded-steps.ts';
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
  for await (const runs of pagesOfSucceeded(db, { graceMs })) {
    const results = runs.filter(({ event }) => cameByBroker(event)).map(({ result }) => result);
    const lacking = await lackingSuccessor(db, triggers, results);
    const dead = await deadAmong(db, lacking);
    for (const result of lacking) {
      if (!dead.has(result) && (await send(result))) sent.push(result);
    }
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

/** Those that a Trigger wants at a function which has no run of them. */
async function lackingSuccessor(
  db: Database,
  triggers: readonly Trigger[],
  results: readonly Event[],
): Promise<Event[]> {
  const wanted = results.map((result) => ({ result, runs: runsOf(triggers, result) }));
  const known = await knownSteps(
    db,
    wanted.flatMap(({ runs }) => runs),
  );
  return wanted.filter(({ runs }) => runs.some((id) => !known.has(id))).map(({ result }) => result);
}

function runsOf(triggers: readonly Trigger[], result: Event): string[] {
  return triggers
    .filter((trigger) => trigger.matches(result))
    .map((trigger) => runIdOf(trigger.function, result.source, result.id));
}
