import { readPredictTraffic } from '../../../shared/cli/predict-service.ts';
import { until } from '../cluster.ts';
import { auditChains, followChain, retrainRequest, send, tally } from '../pipelines.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';

const TIMEOUT_MS = 600_000;

/** One event to the broker, and nobody drives: a model is trained, judged and serves. */
export async function chain(suite: Suite): Promise<Row[]> {
  const { cluster, ingress, photos, photo, say } = suite;
  const request = retrainRequest(cluster.model, photos);
  const before = await tally(cluster);
  const startedAt = performance.now();
  await send(cluster, request);
  const acceptedS = (performance.now() - startedAt) / 1000;
  const links = await followChain(cluster, request, { timeoutMs: TIMEOUT_MS });
  const chainS = (performance.now() - startedAt) / 1000;
  for (const { function: name, run } of links) {
    if (run?.startedAt == null || run.finishedAt === null) continue;
    const tookS = (Date.parse(run.finishedAt) - Date.parse(run.startedAt)) / 1000;
    say(`  ${name.padEnd(10)} ${tookS.toFixed(1)} s, attempt ${run.attempt}`);
  }
  const { lost, doubled } = await auditChains(cluster, [request], before);
  for (const fault of [...lost, ...doubled]) say(`  ${fault}`);
  if (lost.length > 0) throw new Error(`the chain did not end: ${lost.join('; ')}`);
  const { url } = (await readPredictTraffic(cluster.api, cluster.namespace)) ?? {};
  if (url === undefined) throw new Error('deploy left no predict Service');
  const host = new URL(url).host;
  let status = 0;
  await until(
    'predict answers',
    async () => {
      ({ status } = await ingress.post(host, photo));
      return status === 200;
    },
    { timeoutMs: 30_000 },
  );
  return [
    row('event chain, from zero', `${chainS.toFixed(1)} s`, 'ends with a champion', status === 200),
    row(
      'the broker had the first event',
      `${acceptedS.toFixed(1)} s`,
      'before the chain ended',
      acceptedS < chainS,
    ),
    row(
      'steps lost / doubled',
      `${lost.length} / ${doubled.length}`,
      '0 / 0',
      lost.length + doubled.length === 0,
    ),
  ];
}
