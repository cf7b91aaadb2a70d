import { readPredictTraffic } from '../../../shared/cli/predict-service.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';
import { quantile } from '../traffic.ts';

const WARM_UP = 20;
const REQUESTS = 200;

/** Photos one after the other through ingress, queue-proxy and pod. */
export async function warm({ cluster, ingress, photo }: Suite): Promise<Row[]> {
  const traffic = await readPredictTraffic(cluster.api, cluster.namespace);
  if (traffic?.url === undefined) throw new Error('there is no predict Service');
  const host = new URL(traffic.url).host;
  for (let index = 0; index < WARM_UP; index++) await ingress.post(host, photo);
  const latenciesMs: number[] = [];
  let failed = 0;
  for (let index = 0; index < REQUESTS; index++) {
    const { status, latencyMs } = await ingress.post(host, photo);
    latenciesMs.push(latencyMs);
    if (status !== 200) failed += 1;
  }
  const [middle, high] = [quantile(latenciesMs, 0.5), quantile(latenciesMs, 0.95)];
  return [
    row(
      'warm predict, p50 / p95',
      `${middle.toFixed(1)} / ${high.toFixed(1)} ms`,
      `${REQUESTS} answered`,
      failed === 0,
    ),
  ];
}
