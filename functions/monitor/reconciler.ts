import { join } from 'node:path';
import { DandelionError } from '../../shared/errors.ts';
import type { Event } from '../../shared/events.ts';
import { sendLeftNotices } from '../../shared/function/notices.ts';
import type { Sink } from '../../shared/function/sink.ts';
import { resendLeftRuns, resendLostResults } from '../../shared/function/successors.ts';
import { readTriggers, type Trigger } from '../../shared/function/triggers.ts';
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

export function createReconciler(
  db: Database,
  sink: Sink | undefined,
  settings: { TRIGGERS_DIR?: string; RECONCILE_GRACE_MS: number },
): Reconciler {
  let reading: Promise<Trigger[]> | undefined;
  return {
    async reconcile({ log }) {
      if (sink === undefined) {
        throw new DandelionError(
          'bad-config',
          'Set K_SINK to the address of the broker to send events again.',
        );
      }
      reading ??= readTriggers(settings.TRIGGERS_DIR ?? shippedTriggers);
      const triggers = await reading;
      const send = async (event: Event) => {
        const answer = await sink(event);
        if (answer.kind === 'taken') return;
        throw new DandelionError(
          'upstream-unavailable',
          `The broker did not take ${event.id}: ${answer.reason}.`,
        );
      };
      const graceMs = settings.RECONCILE_GRACE_MS;
      const healed = [
        // First, as results that wait in the outbox have not reached their next step either.
        {
          events: await sendLeftNotices(db, sink, { overdueMs: graceMs, leaseMs: LEASE_MS, log }),
          why: 'waited',
        },
        {
          events: await resendLostResults(db, triggers, send, { graceMs }),
          why: 'had not reached its next step',
        },
        { events: await resendLeftRuns(db, send, { graceMs }), why: 'was left by whoever worked on it' },
      ];
      for (const { events, why } of healed) {
        for (const { id, type } of events)
          log.warn({ event: { action: 'reconciled', id } }, `${type} ${why}: sent again`);
      }
      return { sent: healed.flatMap(({ events }) => events.map(({ id, type }) => ({ id, type }))) };
    },
  };
}
