import { DandelionError } from '../../errors.ts';
import { type Check, notConfigured } from './check.ts';
import { ask, placeOf, textAt } from './http.ts';

const named = { name: 'Airflow', variable: 'AIRFLOW_URL' };

export const airflow: Check = {
  name: 'Airflow',
  variable: 'AIRFLOW_URL',
  async look({ AIRFLOW_URL: url }) {
    if (url === undefined) return notConfigured('AIRFLOW_URL names one');
    const base = url.replace(/\/+$/, '');
    const place = `Airflow at ${placeOf(url)}`;
    const { status, text, latencyMs, clockAheadMs } = await ask(`${base}/api/v2/version`, named);
    const version = textAt(text, 'version');
    if (version === undefined) {
      const fault = `answered ${status} to /api/v2/version, as no Airflow 3 does: check AIRFLOW_URL`;
      throw new DandelionError('bad-config', `${place} ${fault}.`);
    }
    const health = await ask(`${base}/api/v2/monitor/health`, named);
    const ill = ['metadatabase', 'scheduler', 'dag_processor'].filter(
      (part) => textAt(health.text, part, 'status') === 'unhealthy',
    );
    if (ill.length > 0) {
      const cure = 'see that it runs, and its log';
      throw new DandelionError(
        'store-unavailable',
        `${place} is up, but not its ${ill.join(', ')}: ${cure}.`,
      );
    }
    return {
      status: 'ok',
      version,
      latencyMs,
      detail: placeOf(url),
      ...(clockAheadMs === undefined ? {} : { clockAheadMs }),
    };
  },
};
