import { DandelionError } from '../../errors.ts';
import { type Check, notConfigured } from './check.ts';
import { ask, placeOf } from './http.ts';

/** How a broker refuses a body that is no event. */
const refusals = [400, 415, 422];

export const broker: Check = {
  name: 'Broker',
  variable: 'K_SINK',
  async look({ K_SINK: url }) {
    if (url === undefined) return notConfigured('npm start has its own; K_SINK names one');
    // No event: nothing is delivered to anybody.
    const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' };
    const answer = await ask(url, { name: 'The broker', variable: 'K_SINK' }, request);
    const { status, latencyMs, clockAheadMs } = answer;
    if (!refusals.includes(status)) {
      const meaning =
        status === 404 ? 'there is no broker of that name' : 'a broker refuses what is no event';
      throw new DandelionError(
        status >= 500 ? 'store-unavailable' : 'bad-config',
        `The broker at ${placeOf(url)} answered ${status}: ${meaning}. See kubectl get brokers, and check K_SINK.`,
      );
    }
    return {
      status: 'ok',
      latencyMs,
      detail: placeOf(url),
      ...(clockAheadMs === undefined ? {} : { clockAheadMs }),
    };
  },
};
