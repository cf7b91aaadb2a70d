import type { z } from 'zod';
import { storeSettings } from '../../shared/config.ts';

export const deploySettings = storeSettings;
export type DeploySettings = z.infer<typeof deploySettings>;
