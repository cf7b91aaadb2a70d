import type { z } from 'zod';
import { type Event, type PredictionRecord, parseEventData } from '../../shared/events.ts';
import type { Database } from '../../shared/stores/database.ts';
import { type KeptPredictions, purgePredictions, savePredictions } from '../../shared/stores/predictions.ts';
import type { monitorSettings } from './config.ts';

const PURGE_EVERY_MS = 3_600_000;
const DAY_MS = 86_400_000;

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
      const kept = await savePredictions(db, sent.records);
      handOn(kept.records);
      if (performance.now() - purgedAt > PURGE_EVERY_MS) {
        purgedAt = performance.now();
        await purgePredictions(db, days * DAY_MS);
      }
      return kept;
    },
  };
}
