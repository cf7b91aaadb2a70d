import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { count, flag, modelName, objectSettings } from '../../shared/config.ts';
import { modelVersion } from '../../shared/events.ts';

export const predictSettings = objectSettings.extend({
  MODEL_NAME: modelName.default('dandelion'),
  /** Serves this version for good. Unset: champion.json is followed. */
  MODEL_VERSION: modelVersion.optional(),
  /** How often champion.json is looked at, in milliseconds. */
  PREDICT_FOLLOW_MS: count(50).default(2000),
  /** Threads that answer photos side by side under load. Default: one a core, 4 at most. */
  PREDICT_ENGINE_THREADS: count(1).default(Math.min(4, availableParallelism())),
  /** Photos one request may carry. */
  PREDICT_MAX_PHOTOS: count(1).default(32),
  /** Lets a caller name a photo by URL. Off in production: it makes the server fetch for strangers. */
  PREDICT_ALLOW_URL: flag.default(false),
  /** Share of answers and refusals that the prediction log tells of; faults of ours are told of always. 0: no log. */
  PREDICTION_LOG_SAMPLE: z.coerce.number().min(0).max(1).default(1),
  /** Secret key of the hash that stands for a client; without it records say nothing of clients. */
  PREDICTION_LOG_SALT: z.string().min(16, 'use at least 16 characters').optional(),
  /** Longest time a record waits for others. */
  PREDICTION_LOG_FLUSH_MS: count(1).default(2000),
  /** Set by Knative. */
  K_REVISION: z.string().optional(),
  /** Where the log goes; without it none is kept. */
  K_SINK: z.string().optional(),
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
