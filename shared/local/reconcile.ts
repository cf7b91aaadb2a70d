import type { Logger } from 'pino';
import type { Event } from '../events.ts';
import { cameByBroker, resendLostResults } from '../function/successors.ts';
import type { Database } from '../stores/database.ts';
import { listUnfinished } from '../stores/steps.ts';
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
  const unfinished = (await listUnfinished(db)).filter(
    (run) => functions.has(run.function) && cameByBroker(run.event),
  );
  for (const run of unfinished) await broker.send(run.event, run.function);
  const send = async (result: Event) => {
    await broker.publish(result);
    return true;
  };
  const rerouted = await resendLostResults(db, broker.triggers, send, { graceMs: 0 });
  const total = resumed + unfinished.length + rerouted.length;
  if (total > 0) {
    const counts = `${resumed} events, ${unfinished.length} runs, ${rerouted.length} results`;
    logger.info({ event: { action: 'reconciled' } }, `taking up what was left: ${counts}`);
  }
  return total;
}
