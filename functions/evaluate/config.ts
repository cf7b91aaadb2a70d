import { z } from 'zod';
import { storeSettings } from '../../shared/config.ts';

/** A share, 0 to 1. */
const rate = z.coerce.number().min(0).max(1);

export const evaluateSettings = storeSettings.extend({
  /** Least accuracy on the test split. */
  GATE_MIN_ACCURACY: rate.default(0.85),
  /** How much less accurate than the champion a candidate may be, on the same photos. */
  GATE_MARGIN: rate.default(0.02),
  /**
   * How much surer than right the answers on the test split may be. Doubt is not held against a model: with few
   * photos to learn from it is in its place.
   */
  GATE_MAX_OVERCONFIDENCE: rate.default(0.15),
  /** Largest latency and size relative to the champion. */
  GATE_MAX_LATENCY_RATIO: z.coerce.number().positive().default(2),
  GATE_MAX_SIZE_RATIO: z.coerce.number().positive().default(2),
});
export type GateLimits = z.infer<typeof evaluateSettings>;
