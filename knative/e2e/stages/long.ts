import { BatchV1Api, KubeConfig } from '@kubernetes/client-node';
import { until } from '../cluster.ts';
import { auditChains, followChain, retrainRequest, send, tally } from '../pipelines.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';

const TIMEOUT_MS = 600_000;
const SETTING = '/data/LONG_TRAINING_PHOTOS';

/** A dataset that counts as long is trained by a Job, and the chain goes on behind it as behind a Service. */
export async function longTraining(suite: Suite): Promise<Row[]> {
  const { cluster, photos, say } = suite;
  const { core, namespace } = cluster;
  const name = 'dandelion-settings';
  const change = (body: object[]) => core.patchNamespacedConfigMap({ name, namespace, body });
  // Pods read their settings when they start.
  await until('preprocess goes to zero', async () => (await cluster.podsOf('preprocess')).length === 0, {
    timeoutMs: 180_000,
  });
  const { data = {} } = await core.readNamespacedConfigMap({ name, namespace });
  await change([{ op: 'add', path: SETTING, value: '1' }]);
  try {
    const before = await tally(cluster);
    const startedAt = new Date();
    const request = retrainRequest(cluster.model, photos, 3);
    await send(cluster, request);
    await followChain(cluster, request, { timeoutMs: TIMEOUT_MS });
    const tookS = (Date.now() - startedAt.getTime()) / 1000;
    const jobs = await jobsSince(namespace, startedAt);
    for (const { metadata, status } of jobs) {
      const [madeS, endedS] = [metadata?.creationTimestamp, status?.completionTime].map(
        (at) => ((at?.getTime() ?? Number.NaN) - startedAt.getTime()) / 1000,
      );
      say(
        `  ${metadata?.name}: ${status?.succeeded ?? 0} succeeded, made after ${madeS} s, ended after ${endedS} s`,
      );
    }
    const { lost, doubled } = await auditChains(cluster, [request], before);
    for (const fault of [...lost, ...doubled]) say(`  ${fault}`);
    const succeeded = jobs.filter(({ status }) => status?.succeeded === 1).length;
    return [
      row(
        'training as a Job, chain',
        `${tookS.toFixed(1)} s, ${jobs.length} Job, ${lost.length} lost, ${doubled.length} doubled`,
        '1 Job, 0 lost, 0 doubled',
        jobs.length === 1 && succeeded === 1 && lost.length + doubled.length === 0,
      ),
    ];
  } finally {
    const old = data.LONG_TRAINING_PHOTOS;
    await change([
      old === undefined ? { op: 'remove', path: SETTING } : { op: 'replace', path: SETTING, value: old },
    ]);
  }
}

/** Jobs of train that were created since. The last one ends a moment after its result is with the broker. */
async function jobsSince(namespace: string, since: Date) {
  const config = new KubeConfig();
  config.loadFromDefault();
  const batch = config.makeApiClient(BatchV1Api);
  const list = async () => {
    const { items } = await batch.listNamespacedJob({
      namespace,
      labelSelector: 'app.kubernetes.io/name=train',
    });
    // Kubernetes keeps whole seconds.
    return items.filter(
      ({ metadata }) => (metadata?.creationTimestamp?.getTime() ?? 0) > since.getTime() - 1000,
    );
  };
  await until(
    'the Job ends',
    async () => (await list()).every(({ status }) => status?.completionTime != null),
    {
      timeoutMs: 60_000,
    },
  );
  return list();
}
