import type { Logger } from 'pino';
import { type Event, runIdOf } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { findStep, listSucceeded, listUnfinished } from '../stores/steps.ts';
import type { Broker } from './broker.ts';

/**
 * Takes up what an earlier platform left: events it had accepted, runs without an outcome, and results that never
 * reached their next step. Everything sent here twice is one run in the ledger.
 *
 * @returns how many events are on their way again
 */
export async function reconcile(db: Database, broker: Broker, logger: Logger): Promise<number> {
  const resumed = await broker.resume();
  const functions = new Set(broker.triggers.map((trigger) => trigger.function));
  const unfinished = (await listUnfinished(db)).filter((run) => functions.has(run.function));
  for (const run of unfinished) await broker.send(run.event, run.function);
  let rerouted = 0;
  for (const run of await listSucceeded(db)) {
    if (run.result === null || !(await lacksSuccessor(db, broker, run.result))) continue;
    await broker.publish(run.result);
    rerouted += 1;
  }
  const total = resumed + unfinished.length + rerouted;
  if (total > 0) {
    const counts = `${resumed} events, ${unfinished.length} runs, ${rerouted} results`;
    logger.info({ event: { action: 'reconciled' } }, `taking up what was left: ${counts}`);
  }
  return total;
}

async function lacksSuccessor(db: Database, broker: Broker, result: Event): Promise<boolean> {
  for (const trigger of broker.triggers.filter((each) => each.matches(result))) {
    const id = runIdOf(trigger.function, result.source, result.id);
    if ((await findStep(db, trigger.function, id)) === undefined) return true;
  }
  return false;
}
