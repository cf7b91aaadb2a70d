import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { askService } from '../../../shared/cli/kubernetes-api.ts';
import type { Event } from '../../../shared/events.ts';
import { listDeadLetters } from '../../../shared/stores/dead-letters.ts';
import { until } from '../cluster.ts';
import { auditChains, followChain, retrainRequest, send, tally } from '../pipelines.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';

const TIMEOUT_MS = 300_000;
const DISPATCHER = {
  namespace: 'knative-eventing',
  labelSelector: 'messaging.knative.dev/channel=in-memory-channel,messaging.knative.dev/role=dispatcher',
};

/** What nobody can take ends where it is seen and can be sent again. */
export async function poison(suite: Suite): Promise<Row[]> {
  const { cluster, say } = suite;
  const { db, api, namespace } = cluster;
  const id = randomBytes(8).toString('hex');
  const event: Event = {
    ...{ specversion: '1.0', id, source: '/dandelion/e2e', type: 'dev.dandelion.features.stored.v1' },
    ...{ datacontenttype: 'application/json', data: { model: 'Not a name' } },
  };
  await send(cluster, event);
  const find = async () =>
    (await listDeadLetters(db, { all: true, limit: 1000 })).find((letter) => letter.event.id === id);
  await until('the dead letter', async () => (await find()) !== undefined, { timeoutMs: TIMEOUT_MS });
  const letter = await find();
  say(`  ${letter?.destination}: ${letter?.cause}`);
  const replay = { method: 'POST', path: `/dead-letters/${letter?.id}/replay` };
  const { status, text } = await askService(api, { namespace, name: 'monitor' }, replay);
  if (status !== 200) say(`  replay answered ${status}: ${text.slice(0, 300)}`);
  await until('it comes back', async () => ((await find())?.occurrences ?? 0) > 1, { timeoutMs: TIMEOUT_MS });
  const back = await find();
  return [
    row(
      'poison event',
      letter?.cause.split(':')[0] ?? 'lost',
      'dead letter with its cause',
      letter?.cause.startsWith('bad-data') === true,
    ),
    row(
      'its replay',
      `${back?.replays} sent, ${back?.occurrences} buried`,
      'reaches the step again',
      (back?.replays ?? 0) > 0,
    ),
  ];
}

/** The in-memory channels forget what they hold; no step is lost by it. */
export async function dispatcherRestart(suite: Suite): Promise<Row[]> {
  const { cluster, say, photos } = suite;
  const before = await tally(cluster);
  const request = retrainRequest(cluster.model, photos, 2);
  await send(cluster, request);
  let restarts = 0;
  const restart = async () => {
    const { items } = await cluster.core.listNamespacedPod(DISPATCHER);
    for (const { metadata } of items) {
      await cluster.core.deleteNamespacedPod({
        name: metadata?.name ?? '',
        namespace: DISPATCHER.namespace,
        gracePeriodSeconds: 0,
      });
    }
    restarts += items.length;
  };
  const restarting = (async () => {
    for (let round = 0; round < 3; round++) {
      await sleep(3000);
      await restart();
    }
  })();
  const startedAt = performance.now();
  await restarting;
  say(`  the dispatcher was restarted ${restarts} times`);
  await followChain(cluster, request, { timeoutMs: TIMEOUT_MS });
  const tookS = (performance.now() - startedAt) / 1000;
  const { lost, doubled } = await auditChains(cluster, [request], before);
  for (const fault of [...lost, ...doubled]) say(`  ${fault}`);
  return [
    row(
      `chain, dispatcher killed ${restarts} times`,
      `${tookS.toFixed(1)} s, ${lost.length} lost, ${doubled.length} doubled`,
      '0 lost, 0 doubled',
      lost.length + doubled.length === 0 && restarts > 0,
    ),
  ];
}
