import type { z } from 'zod';
import { storeSettings } from '../../shared/config.ts';

export const trainSettings = storeSettings;
export type TrainSettings = z.infer<typeof trainSettings>;
