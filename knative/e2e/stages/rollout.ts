import { randomBytes } from 'node:crypto';
import { readPredictTraffic, readWantedRevision, untilServing } from '../../../shared/cli/predict-service.ts';
import { createEvent, type Event } from '../../../shared/events.ts';
import { until } from '../cluster.ts';
import {
  CANARY,
  championOf,
  copyOf,
  DEPLOYMENT_TIMEOUT_MS,
  damageGraph,
  overlaps,
  SLOW_CANARY,
  stateOf,
  untilEnded,
} from '../deployments.ts';
import { approval, sendWithoutWaiting } from '../pipelines.ts';
import { lastApproval, type Suite } from '../stage.ts';
import { measured, type Row, row } from '../table.ts';
import { quantile, startStream } from '../traffic.ts';
import { untilZero } from './cold-start.ts';

const MIN_REQUESTS = 1000;
const TEMPLATE = 'service.yaml';

/** Versions come and go under load: a canary, a deploy pod killed in the middle of it, one that must not serve, a rollback. */
export async function rollout(suite: Suite): Promise<Row[]> {
  const { cluster, ingress, photo, say } = suite;
  const { api, namespace } = cluster;
  const first = await championOf(suite);
  const traffic = await readPredictTraffic(api, namespace);
  if (traffic?.url === undefined) throw new Error('there is no predict Service');
  const host = new URL(traffic.url).host;
  // At most 44 a second, however fast the answers: predict takes 50 of one client.
  const stream = startStream(() => ingress.post(host, photo), { atOnce: 2, pauseMs: 45 });
  const rows: Row[] = [];
  try {
    const second = await copyOf(suite, first);
    const deployment = await promote(suite, second);
    rows.push(...deployment);
    rows.push(...(await refuseBroken(suite, second)));
    rows.push(await giveUp(suite, second));
    rows.push(await goBack(suite, first));
    rows.push(await renewImage(suite, first));
    await until('enough requests', () => stream.sent() >= MIN_REQUESTS, { timeoutMs: DEPLOYMENT_TIMEOUT_MS });
  } finally {
    const { sent, lost, latenciesMs, versions } = await stream.stop();
    for (const fault of lost.slice(0, 5)) say(`  lost: ${fault}`);
    const by = [...versions].map(([version, count]) => `${version} ${count}`).join(', ');
    say(`  answers by version: ${by}`);
    rows.push(
      row(
        'lost requests during rollouts',
        `${lost.length} of ${sent}`,
        `0 of ${MIN_REQUESTS} or more`,
        lost.length === 0 && sent >= MIN_REQUESTS,
      ),
      measured(
        'latency meanwhile, p50 / p95',
        `${quantile(latenciesMs, 0.5).toFixed(0)} / ${quantile(latenciesMs, 0.95).toFixed(0)} ms`,
      ),
    );
  }
  return rows;
}

/** A good version goes through its stages, though deploy's pod is killed in one; a second deployment waits for it. */
async function promote(suite: Suite, version: string): Promise<Row[]> {
  const { cluster, say } = suite;
  const event = approval(await lastApproval(suite), version, SLOW_CANARY);
  const startedAt = performance.now();
  sendWithoutWaiting(suite, event);
  await until('the canary begins', async () => (await stateOf(suite, event))?.phase === 'canary', {
    timeoutMs: DEPLOYMENT_TIMEOUT_MS,
  });
  for (const pod of await cluster.podsOf('deploy')) await cluster.kill(pod);
  const next = approval(await lastApproval(suite), await copyOf(suite, version), CANARY);
  sendWithoutWaiting(suite, next);
  say('  deploy was killed in the canary; a second deployment waits');
  const ended = await untilEnded(suite, event);
  const tookS = (performance.now() - startedAt) / 1000;
  for (const { phase, decision, reason } of ended?.decisions ?? []) say(`  ${phase}: ${decision}: ${reason}`);
  const waited = await untilEnded(suite, next);
  const overlap = waited !== undefined && ended !== undefined && (await overlaps(suite, event, next));
  return [
    row(
      'canary 10, 50 % to promotion, deploy killed',
      `${tookS.toFixed(1)} s, ${ended?.attempts} attempts`,
      'resumes and promotes',
      ended?.phase === 'done' && ended.attempts > 1,
    ),
    row(
      'second deployment meanwhile',
      waited?.phase ?? 'lost',
      'waits, then promotes',
      waited?.phase === 'done' && !overlap,
    ),
  ];
}

/** A model whose graph is damaged never serves. */
async function refuseBroken(suite: Suite, like: string): Promise<Row[]> {
  const { say } = suite;
  const serving = await championOf(suite);
  const broken = await copyOf(suite, like, { damage: damageGraph });
  const event = approval(await lastApproval(suite), broken, { ...CANARY });
  sendWithoutWaiting(suite, event);
  const ended = await untilEnded(suite, event);
  say(`  ${broken}: ${ended?.reason}`);
  const still = await championOf(suite);
  return [
    row(
      'damaged model',
      ended?.phase ?? 'no end',
      'rolled back, champion stays',
      ended?.phase === 'rolled-back' && still === serving,
    ),
  ];
}

/** A version that cannot be shown to be good in time is taken back by itself. */
async function giveUp(suite: Suite, like: string): Promise<Row> {
  const { cluster, say } = suite;
  const serving = await championOf(suite);
  const candidate = await copyOf(suite, like);
  const event = approval(await lastApproval(suite), candidate, {
    ...CANARY,
    minSamples: 1_000_000,
    stageTimeoutMs: 5000,
  });
  sendWithoutWaiting(suite, event);
  const ended = await untilEnded(suite, event);
  say(`  ${candidate}: ${ended?.reason}`);
  const traffic = await readPredictTraffic(cluster.api, cluster.namespace);
  const sole = traffic?.targets.find(({ percent }) => percent === 100)?.version;
  return row(
    'canary without proof',
    ended?.phase ?? 'no end',
    'rolled back, all traffic as before',
    ended?.phase === 'rolled-back' && sole === serving,
  );
}

/** Seconds from the request to the traffic. */
async function goBack(suite: Suite, version: string): Promise<Row> {
  const { cluster } = suite;
  const startedAt = performance.now();
  sendWithoutWaiting(suite, rollbackRequest(cluster.model, version));
  await untilServing(cluster.api, cluster.namespace, { wanted: version, timeoutMs: DEPLOYMENT_TIMEOUT_MS });
  const tookS = (performance.now() - startedAt) / 1000;
  const moved = (await championOf(suite)) === version;
  return row('rollback', `${tookS.toFixed(1)} s`, 'under 30 s', moved && tookS < 30);
}

/** The version that serves gets what the template names now, as with a new image of predict. */
async function renewImage(suite: Suite, version: string): Promise<Row> {
  const { core, namespace, api, model } = suite.cluster;
  const of = { name: 'predict-template', namespace };
  const { data } = await core.readNamespacedConfigMap(of);
  const before = data?.[TEMPLATE] ?? '';
  const put = (value: string) =>
    core.patchNamespacedConfigMap({ ...of, body: [{ op: 'replace', path: `/data/${TEMPLATE}`, value }] });
  // Pods see a ConfigMap as it was when they started, or a minute ago.
  await untilZero(suite, 'deploy');
  await put(`${before}# ${randomBytes(4).toString('hex')}\n`);
  try {
    const revision = await readWantedRevision(api, namespace, version);
    const startedAt = performance.now();
    sendWithoutWaiting(suite, rollbackRequest(model, version));
    await untilServing(api, namespace, { wanted: version, revision, timeoutMs: DEPLOYMENT_TIMEOUT_MS });
    const tookS = (performance.now() - startedAt) / 1000;
    return row(
      'new image for the version that serves',
      `${tookS.toFixed(1)} s`,
      'serves by a new revision',
      true,
    );
  } finally {
    await put(before);
  }
}

function rollbackRequest(model: string, version: string): Event {
  return createEvent({
    type: 'dev.dandelion.rollback.requested.v1',
    source: '/dandelion/e2e',
    id: randomBytes(8).toString('hex'),
    data: { model, version, reason: 'end-to-end test' },
  });
}
