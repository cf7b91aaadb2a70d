import { z } from 'zod';
import { type Environment, readConfig, searchSettings, storeSettings } from '../../config.ts';
import { openObjects } from '../../stores/objects.ts';

const httpAddress = z.url({ protocol: /^https?$/, error: 'use http://host:port' }).optional();

const doctorSettings = storeSettings.partial({ DATABASE_URL: true }).extend({
  ...searchSettings.shape,
  KIBANA_URL: httpAddress,
  AIRFLOW_URL: httpAddress,
  K_SINK: httpAddress,
  KUBECONFIG: z.string().optional(),
});

/** All that names a service, and the folder of what is kept here. */
export type DoctorSettings = z.infer<typeof doctorSettings> & { dataDir: string };

/** @throws DandelionError `bad-config` naming every variable that is wrong */
export function readDoctorSettings(dataDir: string, env: Environment): DoctorSettings {
  const settings = readConfig(doctorSettings, env);
  // Asks nothing of a server, but refuses one half of credentials.
  if (settings.S3_ENDPOINT !== undefined) openObjects(settings);
  return { ...settings, dataDir };
}
