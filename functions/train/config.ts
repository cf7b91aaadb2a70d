import type { z } from 'zod';
import { storeSettings, unknownSettings } from '../../shared/config.ts';

export const trainSettings = storeSettings.extend(unknownSettings.shape);
export type TrainSettings = z.infer<typeof trainSettings>;
