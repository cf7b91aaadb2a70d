import { join, resolve } from 'node:path';
import { DandelionError, toDandelionError } from '../../errors.ts';
import { openMlflowClient } from '../../stores/mlflow-client.ts';
import { type Check, timed } from './check.ts';
import { lookAtFolder } from './folders.ts';
import { ask } from './http.ts';

export const tracking: Check = {
  name: 'Tracking',
  async look(settings) {
    const { MLFLOW_TRACKING_URI: url, TRACKING_DIR, dataDir } = settings;
    if (url === undefined) {
      return lookAtFolder(resolve(TRACKING_DIR ?? join(dataDir, 'tracking')), 'TRACKING_DIR');
    }
    const client = openMlflowClient({ ...settings, MLFLOW_TRACKING_URI: url }, { patienceMs: 0 });
    const { latencyMs } = await timed(() => client.once.check().catch(nameCure));
    const { status, text, clockAheadMs } = await ask(`${client.http.url}/version`, {
      name: 'MLflow',
      variable: 'MLFLOW_TRACKING_URI',
    });
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

/** A step tries again later; people look whether it runs. */
function nameCure(thrown: unknown): never {
  const error = toDandelionError(thrown);
  if (error.code !== 'store-unavailable') throw error;
  const cure = 'See that it runs, and check MLFLOW_TRACKING_URI';
  throw new DandelionError(error.code, `${error.message} ${cure}.`, { cause: thrown });
}
