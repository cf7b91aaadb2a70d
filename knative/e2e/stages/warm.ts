import { setTimeout as sleep } from 'node:timers/promises';
import { readPredictTraffic } from '../../../shared/cli/predict-service.ts';
import type { Suite } from '../stage.ts';
import { measured, type Row, row } from '../table.ts';
import { quantile } from '../traffic.ts';

const WARM_UP = 20;
const REQUESTS = 200;
/** predict takes 50 requests a second of one client. */
const PAUSE_MS = 25;

/** Photos one after the other through ingress, queue-proxy and pod. */
export async function warm({ cluster, ingress, photo }: Suite): Promise<Row[]> {
  const traffic = await readPredictTraffic(cluster.api, cluster.namespace);
  if (traffic?.url === undefined) throw new Error('there is no predict Service');
  const host = new URL(traffic.url).host;
  for (let index = 0; index < WARM_UP; index++) {
    await ingress.post(host, photo);
    await sleep(PAUSE_MS);
  }
  const latenciesMs: number[] = [];
  const statuses = new Map<number, number>();
  for (let index = 0; index < REQUESTS; index++) {
    const { status, latencyMs } = await ingress.post(host, photo);
    latenciesMs.push(latencyMs);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    await sleep(PAUSE_MS);
  }
  const [middle, high] = [quantile(latenciesMs, 0.5), quantile(latenciesMs, 0.95)];
  const answers = [...statuses].map(([status, times]) => `${times} x ${status}`).join(', ');
  return [
    measured('warm predict, p50 / p95', `${middle.toFixed(1)} / ${high.toFixed(1)} ms`),
    row('its answers', answers, `${REQUESTS} x 200`, statuses.get(200) === REQUESTS),
  ];
}
