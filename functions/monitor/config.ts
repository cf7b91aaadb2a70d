import { z } from 'zod';
import { count, searchSettings, storeSettings } from '../../shared/config.ts';

export const monitorSettings = storeSettings.pick({ DATABASE_URL: true }).extend({
  ...searchSettings.shape,
  /** Records of predictions are deleted after this many days. */
  PREDICTIONS_KEPT_DAYS: count(1).default(90),
  /** A result that has not reached its next step for this long is sent again. */
  RECONCILE_GRACE_MS: count().default(60_000),
  /** Folder of the Trigger manifests, where they are not those that ship. */
  TRIGGERS_DIR: z.string().min(1).optional(),
});
