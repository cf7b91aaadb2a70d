import { z } from 'zod';
import { storeSettings } from '../../shared/config.ts';

export const trainSettings = storeSettings.extend({
  /** Share of the classes' own photos that predict is to give a label; the rest it calls unknown. */
  UNKNOWN_ACCEPTANCE: z.coerce.number().gt(0).lt(1).default(0.95),
});
export type TrainSettings = z.infer<typeof trainSettings>;
