import type { z } from 'zod';
import { type Event, parseEventData } from '../../shared/events.ts';
import type { Database } from '../../shared/stores/database.ts';
import { purgePredictions, savePredictions } from '../../shared/stores/predictions.ts';
import type { monitorSettings } from './config.ts';

const PURGE_EVERY_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** Keeps the prediction log: writes what arrives, deletes what is older than the retention. */
export interface PredictionKeeper {
  /**
   * @returns how many records were new
   * @throws DandelionError `bad-data`, `database-unavailable`
   */
  keep(event: Event): Promise<number>;
}

export function createPredictionKeeper(
  db: Database,
  { PREDICTIONS_KEPT_DAYS: days }: Pick<z.infer<typeof monitorSettings>, 'PREDICTIONS_KEPT_DAYS'>,
): PredictionKeeper {
  let purgedAt = Number.NEGATIVE_INFINITY;
  return {
    async keep(event) {
      const { records } = parseEventData(event, 'dev.dandelion.predictions.made.v1');
      const stored = await savePredictions(db, records);
      if (performance.now() - purgedAt > PURGE_EVERY_MS) {
        purgedAt = performance.now();
        await purgePredictions(db, days * DAY_MS);
      }
      return stored;
    },
  };
}
