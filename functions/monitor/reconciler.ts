import { join } from 'node:path';
import { DandelionError } from '../../shared/errors.ts';
import type { Sink } from '../../shared/function/sink.ts';
import { resendLostResults } from '../../shared/function/successors.ts';
import { readTriggers, type Trigger } from '../../shared/function/triggers.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';

/** Heals what an in-memory channel lost. */
export interface Reconciler {
  /** @returns what was sent again */
  reconcile(context: FunctionContext): Promise<{ sent: { id: string; type: string }[] }>;
}

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
      const send = async (event: Parameters<Sink>[0]) => {
        const answer = await sink(event);
        if (answer.kind === 'taken') return;
        throw new DandelionError(
          'upstream-unavailable',
          `The broker did not take ${event.id}: ${answer.reason}.`,
        );
      };
      const sent = await resendLostResults(db, triggers, send, { graceMs: settings.RECONCILE_GRACE_MS });
      for (const { id, type } of sent) {
        log.warn(
          { event: { action: 'reconciled', id } },
          `${type} had not reached its next step: sent again`,
        );
      }
      return { sent: sent.map(({ id, type }) => ({ id, type })) };
    },
  };
}
