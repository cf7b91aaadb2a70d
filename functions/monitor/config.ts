import { count, storeSettings } from '../../shared/config.ts';

export const monitorSettings = storeSettings.pick({ DATABASE_URL: true }).extend({
  /** Records of predictions are deleted after this many days. */
  PREDICTIONS_KEPT_DAYS: count(1).default(90),
});
