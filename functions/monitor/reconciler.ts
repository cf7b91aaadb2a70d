import { join } from 'node:path';
import { DandelionError } from '../../shared/errors.ts';
import type { Event } from '../../shared/events.ts';
import { sendLeftNotices } from '../../shared/function/notices.ts';
import type { Sink } from '../../shared/function/sink.ts';
import { resendLeftRuns, resendLostResults } from '../../shared/function/successors.ts';
import { readTriggers } from '../../shared/function/triggers.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';

/** Heals what a channel lost, and what pods left that nobody followed. */
export interface Reconciler {
  /** @returns what was sent again */
  reconcile(context: FunctionContext): Promise<{ sent: { id: string; type: string }[] }>;
}

/** A notice is somebody's for so long. */
const LEASE_MS = 30_000;
/** Laid beside the bundle when it is built. */
const shippedTriggers = join(import.meta.dirname, 'eventing');

/**
 * Makes the reconciler on a ledger and a broker.
 *
 * @param sink the broker; without one every `reconcile` throws DandelionError `bad-config`
 */
export function createReconciler(
  db: Database,
  sink: Sink | undefined,
  settings: { TRIGGERS_DIR?: string; RECONCILE_GRACE_MS: number },
): Reconciler {
  return {
    async reconcile({ log }) {
      if (sink === undefined) {
        throw new DandelionError(
          'bad-config',
          'Set K_SINK to the address of the broker to send events again.',
        );
      }
      const triggers = await readTriggers(settings.TRIGGERS_DIR ?? shippedTriggers);
      const graceMs = settings.RECONCILE_GRACE_MS;
      const send = (event: Event) => sendAgain(sink, event, log);
      const sent: Event[] = [];
      const note = (events: readonly Event[], why: string): void => {
        sent.push(...events);
        for (const { id, type } of events)
          log.warn({ event: { action: 'reconciled', id } }, `${type} ${why}: sent again`);
      };
      // First, as results that wait in the outbox have not reached their next step either.
      note(await sendLeftNotices(db, sink, { overdueMs: graceMs, leaseMs: LEASE_MS, log }), 'waited');
      note(await resendLostResults(db, triggers, send, { graceMs }), 'had not reached its next step');
      note(await resendLeftRuns(db, send, { graceMs }), 'was left by whoever worked on it');
      return { sent: sent.map(({ id, type }) => ({ id, type })) };
    },
  };
}

async function sendAgain(sink: Sink, event: Event, log: FunctionContext['log']): Promise<boolean> {
  const answer = await sink(event);
  if (answer.kind === 'taken') return true;
  const sentence = `The broker did not take ${event.id}: ${answer.reason}.`;
  if (answer.kind === 'failed') throw new DandelionError('upstream-unavailable', sentence);
  log.error({ event: { action: 'refused', id: event.id } }, sentence);
  return false;
}
