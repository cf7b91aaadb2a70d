import { randomBytes } from 'node:crypto';
import { promoteChampion } from '../../../shared/stores/models.ts';
import { applyService, createService, deleteService, readServiceSpec, until } from '../cluster.ts';
import { championOf, copyOf, damageGraph } from '../deployments.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';
import type { Answer } from '../traffic.ts';
import { quickToZero, type Template, untilZero } from './cold-start.ts';

const FOLLOWS = 'e2e-follows';
const PINNED = 'e2e-pinned';
/** predict looks for a new champion every 2 s. */
const SEEN_WITHIN_MS = 30_000;
/** Longer than predict takes from its start to its end when its model is not there. */
const NEVER_READY_FOR_MS = 20_000;

/** What predict does where its model is not: it says so, takes one that comes, and keeps the one that it has. */
export async function champion(suite: Suite): Promise<Row[]> {
  const { cluster } = suite;
  const model = `e2e-${randomBytes(4).toString('hex')}`;
  const serving = await championOf(suite);
  const { template } = (await readServiceSpec(cluster, 'predict')) as { template: Template };
  try {
    const host = await applyService(cluster, FOLLOWS, { template: asking(template, { MODEL_NAME: model }) });
    await untilZero(suite, FOLLOWS);
    return [
      await noChampion(suite, host),
      await firstChampion(suite, host, { model, like: serving }),
      await brokenChampion(suite, host, { model, like: serving }),
      await missingVersion(suite, template),
    ];
  } finally {
    await deleteService(cluster, FOLLOWS);
    await deleteService(cluster, PINNED);
  }
}

async function noChampion({ ingress, photo, say }: Suite, host: string): Promise<Row> {
  const { status, text, latencyMs } = await ingress.post(host, photo);
  say(`  ${text.slice(0, 160)}`);
  const isClear = status === 503 && text.includes('no-champion');
  const value = `${status} after ${(latencyMs / 1000).toFixed(1)} s`;
  return row('predict from zero, no champion', value, '503 no-champion', isClear);
}

async function firstChampion(
  suite: Suite,
  host: string,
  { model, like }: { model: string; like: string },
): Promise<Row> {
  const version = await copyOf(suite, like, { as: model });
  await promoteChampion(suite.cluster.objects, model, version);
  const promotedAt = performance.now();
  await untilAnswer(suite, host, ({ status, text }) => status === 200 && text.includes(version));
  const tookS = (performance.now() - promotedAt) / 1000;
  return row('a champion comes', `serves after ${tookS.toFixed(1)} s`, 'serves without a restart', true);
}

/** A champion that cannot be loaded leaves the one before it serving, for who follows champion.json. */
async function brokenChampion(
  suite: Suite,
  host: string,
  { model, like }: { model: string; like: string },
): Promise<Row> {
  const { cluster, ingress, photo, say } = suite;
  const broken = await copyOf(suite, like, { as: model, damage: damageGraph });
  await promoteChampion(cluster.objects, model, broken);
  let said: string | undefined;
  const answers: Answer[] = [];
  await until(
    'predict says that its champion is broken',
    async () => {
      answers.push(await ingress.post(host, photo));
      said = /"message":"(the champion cannot be loaded[^"]*)/.exec(await logOf(suite, FOLLOWS))?.[1];
      return said !== undefined;
    },
    { timeoutMs: SEEN_WITHIN_MS },
  );
  answers.push(await ingress.post(host, photo));
  say(`  ${said}`);
  const wrong = answers.filter(({ status, text }) => status !== 200 || text.includes(broken));
  for (const { status, text } of wrong.slice(0, 3)) say(`  ${status}: ${text.slice(0, 160)}`);
  const value = `${answers.length - wrong.length} of ${answers.length} answered by the one before`;
  return row('its successor is damaged', value, 'never serves', wrong.length === 0);
}

/** With MODEL_VERSION there is no other model to wait for: the revision never gets ready, and its log says why. */
async function missingVersion(suite: Suite, template: Template): Promise<Row> {
  const { cluster, say } = suite;
  await createService(cluster, PINNED, { template: asking(template, { MODEL_VERSION: 'v0000000000' }) });
  let said: string | undefined;
  await until(
    'predict says that its version is missing',
    async () => {
      said ??= /"message":"(predict cannot start[^"]*(?:\\"[^"]*)*)"/.exec(await logOf(suite, PINNED))?.[1];
      return said !== undefined;
    },
    { timeoutMs: 60_000 },
  );
  say(`  ${said}`);
  const isReady = async () => {
    const pods = await cluster.podsOf(PINNED);
    return pods.some(({ status }) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
    );
  };
  const deadline = Date.now() + NEVER_READY_FOR_MS;
  let ready = false;
  await until(
    'the time passes',
    async () => {
      ready ||= await isReady();
      return ready || Date.now() > deadline;
    },
    { timeoutMs: 2 * NEVER_READY_FOR_MS },
  );
  const value = ready ? 'ready' : 'never ready, says why';
  return row('MODEL_VERSION that is not there', value, 'never ready, says why', !ready);
}

/** A copy of predict's revisions with other settings; those that are not named are not set. */
function asking(template: Template, settings: { MODEL_NAME?: string; MODEL_VERSION?: string }): Template {
  const { annotations, labels } = template.metadata;
  const [container, ...others] = template.spec.containers;
  if (container === undefined) throw new Error('the predict Service has no container');
  const kept = (container.env ?? []).filter(({ name }) => name !== 'MODEL_VERSION' && !(name in settings));
  const env = [...kept, ...Object.entries(settings).map(([name, value]) => ({ name, value }))];
  return {
    metadata: { ...(labels && { labels }), annotations: { ...annotations, ...quickToZero } },
    spec: { ...template.spec, containers: [{ ...container, env }, ...others] },
  };
}

async function untilAnswer(
  { ingress, photo }: Suite,
  host: string,
  isRight: (answer: Answer) => boolean,
): Promise<void> {
  await until('the answer', async () => isRight(await ingress.post(host, photo)), {
    timeoutMs: SEEN_WITHIN_MS,
    everyMs: 100,
  });
}

/** Of the container as it is, and as it was before it was started anew. */
async function logOf({ cluster }: Suite, service: string): Promise<string> {
  const { core, namespace } = cluster;
  const logs = [];
  for (const { metadata } of await cluster.podsOf(service)) {
    const of = { name: metadata?.name ?? '', namespace, container: 'predict' };
    for (const previous of [false, true]) {
      logs.push(await core.readNamespacedPodLog({ ...of, previous }).catch(() => ''));
    }
  }
  return logs.join('\n');
}
