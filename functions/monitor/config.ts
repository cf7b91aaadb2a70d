import { z } from 'zod';
import {
  airflowSettings,
  count,
  modelName,
  objectSettings,
  searchSettings,
  storeSettings,
} from '../../shared/config.ts';

export const monitorSettings = storeSettings.pick({ DATABASE_URL: true }).extend({
  ...objectSettings.shape,
  ...searchSettings.shape,
  ...airflowSettings.shape,
  /** Whose drift is looked for where a request names none. */
  MODEL_NAME: modelName.default('dandelion'),
  /** Records of predictions are deleted after this many days. */
  PREDICTIONS_KEPT_DAYS: count(1).default(90),
  /** A result that has not reached its next step for this long is sent again. */
  RECONCILE_GRACE_MS: count().default(60_000),
  /** Folder of the Trigger manifests, where they are not those that ship. */
  TRIGGERS_DIR: z.string().min(1).optional(),
  /** Different photos that a check for drift wants; so many new answers start one. */
  DRIFT_WINDOW: count(50).default(200),
  /**
   * Share of the time that checks take at most when answers come fast: one of 50 ms is followed by 5 s without, and the
   * next has a larger window. 1: no pause.
   */
  DRIFT_TIME_SHARE: z.coerce.number().min(0.0001).max(1).default(0.01),
  /** Reviewed feedback from which on it is held against the test split; 0: never. */
  DRIFT_MIN_REVIEWED: count().default(30),
  /** Chance of any false alarm while one model serves, over all checks together. */
  DRIFT_FALSE_ALARMS: z.coerce.number().positive().max(0.5).default(0.05),
  /** What an alarm does: has a model trained anew, or only tells. */
  DRIFT_RETRAIN: z.enum(['auto', 'never']).default('auto'),
  /** New photos with a reviewed label without which a training would learn nothing; 0: trains all the same. */
  DRIFT_RETRAIN_MIN_LABELS: count().default(20),
  DRIFT_RETRAIN_COOL_DOWN_MS: count().default(21_600_000),
  DRIFT_RETRAIN_MAX_PER_DAY: count(1).default(2),
});
export type MonitorSettings = z.infer<typeof monitorSettings>;
