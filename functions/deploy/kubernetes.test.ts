import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { readDeploySettings } from './config.ts';
import { type Cluster, openCluster } from './kubernetes.ts';
import type { Rollout } from './rollout.ts';
import { createKnativeRollout } from './rollout-knative.ts';
import { testTemplate } from './testing-template.ts';

const version = 'v0000000001';
const service = { metadata: { name: 'predict' }, spec: { template: {} } };

/** What an API server answers that does not do its part: by verb and plural. */
let answers: Record<string, (() => { status: number; body: object }) | undefined> = {};
const api = createServer(async (request, response) => {
  await request.toArray();
  const plural = new URL(request.url ?? '', 'http://api').pathname.split('/')[6];
  const { status, body } = answers[`${request.method} ${plural}`]?.() ?? { status: 404, body: {} };
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
});
let folder: string;
let cluster: Cluster;
let rollout: Rollout;

beforeAll(async () => {
  api.listen(0, '127.0.0.1');
  await once(api, 'listening');
  const address = api.address();
  const port = typeof address === 'object' ? address?.port : 0;
  folder = await mkdtemp(join(tmpdir(), 'kubernetes-'));
  const kubeconfig = {
    clusters: [
      { name: 'c', cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } },
    ],
    users: [{ name: 'u', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', namespace: 'shop' } }],
    ...{ 'current-context': 'x', apiVersion: 'v1', kind: 'Config' },
  };
  await writeFile(join(folder, 'kubeconfig'), JSON.stringify(kubeconfig));
  await writeFile(join(folder, 'service.yaml'), testTemplate);
  vi.stubEnv('KUBECONFIG', join(folder, 'kubeconfig'));
  const settings = readDeploySettings({
    ...{ DATABASE_URL: 'postgres://unused/unused', OBJECTS_DIR: folder },
    ...{ PREDICT_TEMPLATE: join(folder, 'service.yaml'), REVISION_READY_TIMEOUT_MS: '1000' },
  });
  cluster = await openCluster(settings);
  rollout = createKnativeRollout(cluster, settings);
});
beforeEach(() => {
  answers = {};
});
afterAll(async () => {
  vi.unstubAllEnvs();
  api.closeAllConnections();
  api.close();
  await rm(folder, { recursive: true, force: true });
});

function prepare() {
  const wanted = { model: 'plants', version, revision: 'predict-1', serving: undefined, fence: '1' };
  return rollout.prepare({ ...wanted, waiting: async () => {} });
}

describe('the Kubernetes API', () => {
  it('says what is missing where Knative is not installed', async () => {
    const named = { code: 'cluster-refused', message: expect.stringContaining('install Knative Serving') };
    await expect(cluster.listRevisions('predict')).rejects.toMatchObject(named);
  });

  it('goes on with a Service that is there when it is made: its own try whose answer was lost', async () => {
    let made = false;
    answers['POST services'] = () => {
      made = true;
      return { status: 409, body: { message: 'services "predict" already exists' } };
    };
    answers['GET services'] = () => (made ? { status: 200, body: service } : { status: 404, body: {} });
    let written = 0;
    answers['PUT services'] = () => {
      written += 1;
      return { status: 200, body: service };
    };
    await expect(prepare()).rejects.toMatchObject({ code: 'revision-failed' });
    expect(written).toBe(1);
  });

  it('says of a revision that does not come that Knative has not made it', async () => {
    answers['POST services'] = () => ({ status: 201, body: service });
    await expect(prepare()).rejects.toThrow(/not ready within 1000 ms: Knative has not made it yet/);
  });
});
