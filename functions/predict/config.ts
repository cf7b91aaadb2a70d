import { z } from 'zod';
import { count, flag, modelName, storeSettings } from '../../shared/config.ts';
import { modelVersion } from '../../shared/events.ts';

export const predictSettings = storeSettings.pick({ OBJECTS_DIR: true }).extend({
  MODEL_NAME: modelName.default('dandelion'),
  /** Serves this version for good. Unset: champion.json is followed. */
  MODEL_VERSION: modelVersion.optional(),
  /** How often champion.json is looked at, in milliseconds. */
  PREDICT_FOLLOW_MS: count(50).default(2000),
  /** Photos one inference takes at most when requests have piled up. */
  PREDICT_MAX_BATCH: count(1).default(8),
  /** Photos one request may carry. */
  PREDICT_MAX_PHOTOS: count(1).default(32),
  /** Lets a caller name a photo by URL. Off in production: it makes the server fetch for strangers. */
  PREDICT_ALLOW_URL: flag.default(false),
});
export type PredictSettings = z.infer<typeof predictSettings>;

/** Largest body: a 20 MB photo, or 15 MB of it as base64. */
export const BODY_LIMIT_BYTES = 21_000_000;

/** Only for the type of a parsed JSON request. */
export const jsonRequest = z.union([
  z.object({ image: z.base64() }),
  z.object({ images: z.array(z.base64()).min(1) }),
  z.object({ url: z.url({ protocol: /^https?$/ }) }),
]);
