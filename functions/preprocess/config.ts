import type { z } from 'zod';
import { count, extractorSettings, storeSettings } from '../../shared/config.ts';

export const preprocessSettings = storeSettings.extend({
  ...extractorSettings.shape,
  /** Photos embedded at once; each is embedded with an augmented view. */
  PREPROCESS_BATCH: count(1).default(16),
  /** Photos of a dataset from which on its training is long: a Job's, not a request's. */
  LONG_TRAINING_PHOTOS: count(1).default(50_000),
});
export type PreprocessSettings = z.infer<typeof preprocessSettings>;
