import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoreV1Api, CustomObjectsApi, KubeConfig, setHeaderOptions } from '@kubernetes/client-node';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { describeService } from '../../shared/stores/testing-services.ts';
import { readDeploySettings } from './config.ts';
import { type Cluster, openCluster } from './kubernetes.ts';
import type { Rollout } from './rollout.ts';
import { createKnativeRollout } from './rollout-knative.ts';
import { testTemplate } from './testing-template.ts';

const [first, second] = ['v0000000001', 'v0000000002'] as const;

describeService('KUBECONFIG', 'a rollout on a Kubernetes API', () => {
  const namespace = `deploy-${randomBytes(4).toString('hex')}`;
  const place = { group: 'serving.knative.dev', version: 'v1', namespace };
  const merge = setHeaderOptions('content-type', 'application/merge-patch+json');
  let folder: string;
  let objects: CustomObjectsApi;
  let core: CoreV1Api;
  let cluster: Cluster;
  let rollout: Rollout;

  beforeAll(async () => {
    const config = new KubeConfig();
    config.loadFromDefault();
    objects = config.makeApiClient(CustomObjectsApi);
    core = config.makeApiClient(CoreV1Api);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    folder = await mkdtemp(join(tmpdir(), 'deploy-'));
    const path = join(folder, 'service.yaml');
    await writeFile(path, testTemplate);
    const env = { DATABASE_URL: 'postgres://unused/unused', OBJECTS_DIR: folder, PREDICT_TEMPLATE: path };
    const settings = readDeploySettings({ ...env, KUBE_NAMESPACE: namespace });
    cluster = await openCluster(settings);
    rollout = createKnativeRollout(cluster, settings);
  });
  beforeEach(async ({ skip }) => {
    const { items } = await core.listNamespace();
    if (!items.some(({ metadata }) => metadata?.name === 'knative-serving')) return;
    const why =
      'Knative runs there, and this suite plays its controllers; `npm run test:e2e` is for such a cluster';
    console.warn(`SKIPPED: ${why}.`);
    skip(why);
  });
  afterAll(async () => {
    await core.deleteNamespace({ name: namespace });
    await rm(folder, { recursive: true, force: true });
  });

  /** What Knative's controller writes: the revision, its condition, and where the traffic is. */
  async function reconcile(ready: 'True' | 'False', message?: string): Promise<void> {
    const live = await cluster.readService('predict');
    if (live === undefined) return;
    const { name, labels } = (live.spec.template as { metadata: { name: string; labels: object } }).metadata;
    if ((await cluster.readRevision(name)) === undefined) {
      const metadata = { name, labels: { ...labels, 'serving.knative.dev/service': 'predict' } };
      const containers = [{ name: 'user-container', image: 'dev.local/dandelion-predict:test' }];
      const body = { apiVersion: 'serving.knative.dev/v1', kind: 'Revision', metadata, spec: { containers } };
      await objects.createNamespacedCustomObject({ ...place, plural: 'revisions', body });
      await setCondition(name, { status: ready, reason: 'ContainerCrashing', message });
    }
    const conditions = [{ type: 'RoutesReady', status: 'True' }];
    const { generation } = live.metadata;
    const status = { observedGeneration: generation, traffic: live.spec.traffic, conditions };
    const patch = { ...place, plural: 'services', name: 'predict', body: { status } };
    await objects.patchNamespacedCustomObjectStatus(patch, merge);
  }

  async function setCondition(revision: string, condition: object): Promise<void> {
    const body = { status: { conditions: [{ type: 'Ready', ...condition }] } };
    const patch = { ...place, plural: 'revisions', name: revision, body };
    await objects.patchNamespacedCustomObjectStatus(patch, merge);
  }

  async function prepare(version: string, fence: string, ready: 'True' | 'False' = 'True', message?: string) {
    const revision = await rollout.revisionOf('plants', version);
    const serving = await rollout.serving('plants');
    const waiting = () => reconcile(ready, message);
    await rollout.prepare({ model: 'plants', version, revision, serving, fence, waiting });
    return revision;
  }

  it('creates the Service with the first version, and adds the second without traffic', async () => {
    const one = await prepare(first, '1');
    await rollout.route([{ revision: one, version: first, share: 100, tag: 'champion' }], '1', () =>
      reconcile('True'),
    );
    expect(await rollout.serving('plants')).toEqual({ revision: one, version: first });
    const two = await prepare(second, '2');
    const live = await cluster.readService('predict');
    expect(live?.spec.traffic).toMatchObject([
      { revisionName: one, percent: 100, tag: 'champion' },
      { revisionName: two, percent: 0, tag: 'candidate' },
    ]);
    expect(await rollout.find('plants', first)).toBe(one);
  });

  it('refuses writes of a deployment that a newer one has followed', async () => {
    const revision = await rollout.revisionOf('plants', first);
    const routes = [{ revision, version: first, share: 100, tag: 'champion' as const }];
    const stale = rollout.route(routes, '1', () => reconcile('True'));
    await expect(stale).rejects.toMatchObject({ code: 'lease-lost' });
  });

  it('waits where the nodes have no room yet', async () => {
    const version = 'v0000000004';
    const revision = await rollout.revisionOf('plants', version);
    const serving = await rollout.serving('plants');
    const noted: string[] = [];
    const waiting = async (note: string) => {
      await reconcile('True');
      noted.push(note);
      if (noted.length === 1) await setCondition(revision, { status: 'False', reason: 'Unschedulable' });
      else await setCondition(revision, { status: 'True' });
    };
    await rollout.prepare({ model: 'plants', version, revision, serving, fence: '3', waiting });
    expect(noted.join()).toContain('Unschedulable');
  });

  it('fails with the reason that the revision gives', async () => {
    const broken = prepare('v0000000003', '4', 'False', 'exit code 1: model-broken');
    await expect(broken).rejects.toMatchObject({ code: 'revision-failed' });
    await expect(broken).rejects.toThrow(/ContainerCrashing: exit code 1: model-broken/);
    expect(await rollout.serving('plants')).toMatchObject({ version: first });
  });

  it('says by name that somebody deleted the Service, and makes it again', async () => {
    await objects.deleteNamespacedCustomObject({ ...place, plural: 'services', name: 'predict' });
    const revision = await rollout.revisionOf('plants', second);
    const routes = [{ revision, version: second, share: 100, tag: 'champion' as const }];
    const write = () => rollout.route(routes, '5', () => reconcile('True'));
    await expect(write()).rejects.toMatchObject({ code: 'service-missing' });
    await cluster.deleteRevision(revision);
    await prepare(second, '5');
    await write();
    expect(await rollout.serving('plants')).toEqual({ revision, version: second });
  });
});
