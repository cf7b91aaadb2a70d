import { randomBytes } from 'node:crypto';
import { KubeConfig, RbacAuthorizationV1Api } from '@kubernetes/client-node';
import { runIdOf } from '../../../shared/events.ts';
import { findStep } from '../../../shared/stores/steps.ts';
import { type TestCluster, until } from '../cluster.ts';
import { CANARY, championOf, copyOf, untilEnded } from '../deployments.ts';
import { approval, sendWithoutWaiting } from '../pipelines.ts';
import { lastApproval, type Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';

const ROLE = 'dandelion-deploy';
const REFUSED_WITHIN_MS = 120_000;
const triggers = { group: 'eventing.knative.dev', version: 'v1', plural: 'triggers' } as const;

/** What a cluster refuses is told by name, and goes on when it is mended. */
export async function refusals(suite: Suite): Promise<Row[]> {
  return [await rightsTaken(suite), await unknownFunction(suite)];
}

/** Deploy may not write the predict Service any more: it says what to mend, and the same event ends well afterwards. */
async function rightsTaken(suite: Suite): Promise<Row> {
  const { cluster, say } = suite;
  const version = await copyOf(suite, await championOf(suite));
  const event = approval(await lastApproval(suite), version, CANARY);
  const giveBack = await takeRights(cluster);
  let problem: string | undefined;
  try {
    sendWithoutWaiting(suite, event);
    const id = runIdOf('deploy', event.source, event.id);
    await until(
      'deploy is refused',
      async () => {
        const run = await findStep(cluster.db, 'deploy', id);
        if (run?.problem?.code === 'cluster-refused') problem = run.problem.detail;
        return problem !== undefined;
      },
      { timeoutMs: REFUSED_WITHIN_MS },
    );
    say(`  ${problem}`);
  } finally {
    await giveBack();
  }
  const ended = await untilEnded(suite, event);
  return row(
    'deploy without its rights',
    `cluster-refused, then ${ended?.phase ?? 'no end'}`,
    'names the Role, goes on with it',
    problem?.includes(ROLE) === true && ended?.phase === 'done',
  );
}

/** @returns what gives them back */
async function takeRights({ namespace }: TestCluster): Promise<() => Promise<void>> {
  const config = new KubeConfig();
  config.loadFromDefault();
  const rbac = config.makeApiClient(RbacAuthorizationV1Api);
  const { rules = [] } = await rbac.readNamespacedRole({ name: ROLE, namespace });
  const put = async (value: object[]) => {
    await rbac.patchNamespacedRole({
      name: ROLE,
      namespace,
      body: [{ op: 'replace', path: '/rules', value }],
    });
  };
  await put(rules.map((rule) => ({ ...rule, verbs: rule.verbs.filter((verb) => verb !== 'update') })));
  return () => put(rules);
}

/** A Trigger to a function that is not there says so, and stands in nobody's way. */
async function unknownFunction(suite: Suite): Promise<Row> {
  const { cluster, say } = suite;
  const { custom, namespace } = cluster;
  const name = `e2e-${randomBytes(3).toString('hex')}`;
  const ref = { apiVersion: 'serving.knative.dev/v1', kind: 'Service', name: 'no-such-function' };
  const body = {
    ...{ apiVersion: 'eventing.knative.dev/v1', kind: 'Trigger', metadata: { name } },
    spec: { broker: 'dandelion', subscriber: { ref } },
  };
  await custom.createNamespacedCustomObject({ ...triggers, namespace, body });
  let said = '';
  try {
    await until(
      'the Trigger is not ready',
      async () => {
        const { status } = (await custom.getNamespacedCustomObject({ ...triggers, namespace, name })) as {
          status?: { conditions?: { type: string; status: string; message?: string }[] };
        };
        const ready = status?.conditions?.find(({ type }) => type === 'Ready');
        if (ready?.status === 'False') said = ready.message ?? '';
        return said !== '';
      },
      { timeoutMs: 60_000 },
    );
  } finally {
    await custom.deleteNamespacedCustomObject({ ...triggers, namespace, name });
  }
  say(`  ${said}`);
  const isNamed = said.includes('no-such-function');
  return row(
    'a Trigger to an unknown function',
    isNamed ? 'not ready, named' : said.slice(0, 60),
    'not ready, named',
    isNamed,
  );
}
