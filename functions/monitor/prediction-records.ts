import type { z } from 'zod';
import { type Event, type PredictionRecord, parseEventData } from '../../shared/events.ts';
import type { Database } from '../../shared/stores/database.ts';
import { type KeptPredictions, purgePredictions, savePredictions } from '../../shared/stores/predictions.ts';
import type { monitorSettings } from './config.ts';

const PURGE_EVERY_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** A notice may wait for a broker so long (all tries of a buffer take less), and nobody's clock is wrong. */
const USUAL_DELAY_MS = 300_000;

/** Keeps the prediction log: writes what arrives, deletes what is older than the retention. */
export interface PredictionKeeper {
  /**
   * @throws DandelionError `bad-data`, `database-unavailable`
   */
  keep(event: Event): Promise<KeptPredictions>;
}

/** @param handOn gets the records once they are kept, with the times that they are kept under; those of a repeat too */
export function createPredictionKeeper(
  db: Database,
  { PREDICTIONS_KEPT_DAYS: days }: Pick<z.infer<typeof monitorSettings>, 'PREDICTIONS_KEPT_DAYS'>,
  handOn: (records: readonly PredictionRecord[]) => void,
): PredictionKeeper {
  let purgedAt = Number.NEGATIVE_INFINITY;
  return {
    async keep(event) {
      const sent = parseEventData(event, 'dev.dandelion.predictions.made.v1');
      const kept = await savePredictions(db, onBrokersClock(sent.records, event));
      handOn(kept.records);
      if (performance.now() - purgedAt > PURGE_EVERY_MS) {
        purgedAt = performance.now();
        await purgePredictions(db, days * DAY_MS);
      }
      return kept;
    },
  };
}

/**
 * Records of a pod whose clock is wrong, on the broker's clock: what is hours behind would be missing in every window and
 * soon be deleted as old. The notice tells by how much: `time` is the pod's when it was sent, `knativearrivaltime` the
 * broker's when it came, and stays the same however late it is delivered.
 *
 * Source: Knative Eventing, every event that enters a broker gets the extension `knativearrivaltime`.
 */
function onBrokersClock(records: readonly PredictionRecord[], event: Event): readonly PredictionRecord[] {
  const skewMs = Date.parse(String(event.knativearrivaltime)) - Date.parse(String(event.time));
  if (Number.isNaN(skewMs) || Math.abs(skewMs) <= USUAL_DELAY_MS) return records;
  return records.map((record) => ({
    ...record,
    time: new Date(Date.parse(record.time) + skewMs).toISOString(),
  }));
}
