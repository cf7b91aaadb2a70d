import { DandelionError } from '../../errors.ts';
import { type Check, notConfigured } from './check.ts';
import { ask, placeOf, textAt } from './http.ts';

export const kibana: Check = {
  name: 'Kibana',
  variable: 'KIBANA_URL',
  async look({ KIBANA_URL: url }) {
    if (url === undefined) return notConfigured('KIBANA_URL names one');
    const place = `Kibana at ${placeOf(url)}`;
    const base = url.replace(/\/+$/, '');
    const { status, text, latencyMs, clockAheadMs } = await ask(`${base}/api/status`, {
      name: 'Kibana',
      variable: 'KIBANA_URL',
    });
    if (status === 401 || status === 403) {
      throw new DandelionError(
        'store-forbidden',
        `${place} refuses to tell its status: put user and password into KIBANA_URL, or set status.allowAnonymous.`,
      );
    }
    const level = textAt(text, 'status', 'overall', 'level');
    if (level === undefined) {
      const fault = `answered ${status} to /api/status, not as Kibana does: check KIBANA_URL`;
      throw new DandelionError('bad-config', `${place} ${fault}.`);
    }
    if (level !== 'available') {
      const cure = 'wait if it just started; else see its log and the Elasticsearch it uses';
      throw new DandelionError('store-unavailable', `${place} is ${level}: ${cure}.`);
    }
    const version = textAt(text, 'version', 'number');
    return {
      status: 'ok',
      latencyMs,
      detail: placeOf(url),
      ...(version === undefined ? {} : { version }),
      ...(clockAheadMs === undefined ? {} : { clockAheadMs }),
    };
  },
};
