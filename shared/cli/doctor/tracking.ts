import { join, resolve } from 'node:path';
import { openMlflowClient } from '../../stores/mlflow-client.ts';
import { type Check, timed } from './check.ts';
import { lookAtFolder } from './folders.ts';
import { ask } from './http.ts';

export const tracking: Check = {
  name: 'Tracking',
  variable: 'MLFLOW_TRACKING_URI',
  async look(settings) {
    const { MLFLOW_TRACKING_URI: url, TRACKING_DIR, dataDir } = settings;
    if (url === undefined) {
      return lookAtFolder(resolve(TRACKING_DIR ?? join(dataDir, 'tracking')), 'TRACKING_DIR');
    }
    const client = openMlflowClient({ ...settings, MLFLOW_TRACKING_URI: url }, { patienceMs: 0 });
    // First what says within seconds that it does not answer.
    const { status, text, clockAheadMs } = await ask(`${client.http.url}/version`, {
      name: 'MLflow',
      variable: 'MLFLOW_TRACKING_URI',
    });
    const { latencyMs } = await timed(() => client.once.check());
    return {
      status: 'ok',
      latencyMs,
      detail: `MLflow at ${client.http.url}`,
      // Servers behind a guard of another kind do not tell it.
      ...(status === 200 && text.length < 40 ? { version: text.trim() } : {}),
      ...(clockAheadMs === undefined ? {} : { clockAheadMs }),
    };
  },
};
