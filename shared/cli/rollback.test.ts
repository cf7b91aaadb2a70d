import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEvent } from '../events.ts';
import { encodeBinary } from '../function/cloudevents.ts';
import { type Platform, startPlatform } from '../local/platform.ts';
import { readChampion } from '../stores/models.ts';
import { type TestStores, testStores } from '../stores/testing.ts';
import { readTestPhoto, storeDrawnDataset, storeDrawnModel } from '../stores/testing-models.ts';

const run = promisify(execFile);
const [first, second] = ['v0000000001', 'v0000000002'] as const;
let folder: string;
let stores: TestStores;
let platform: Platform;
let photo: Buffer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-rollback-'));
  stores = await testStores();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  platform = await startPlatform({ dataDir: folder, port: 0, env: { ...stores.env, MODEL_NAME: 'plants' } });
  for (const version of [first, second]) {
    const { metrics } = await storeDrawnModel(stores, { name: 'plants', version, dataset });
    const model = { name: 'plants', version };
    const type = 'dev.dandelion.model.approved.v1';
    const data = { model, dataset, checks: [], metrics, champion: null };
    const { headers, body } = encodeBinary(createEvent({ type, source: '/test', id: version, data }));
    const url = `${platform.gatewayUrl}/function/deploy/`;
    const deployed = await fetch(url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
    expect(deployed.status).toBe(200);
  }
  photo = (await readTestPhoto(stores, 'plants', dataset.version)).bytes;
});
afterAll(async () => {
  await platform?.stop();
  await stores?.drop();
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

function rollBack(...words: string[]): Promise<{ code: number; output: string }> {
  return rollBackWith({}, ...words);
}

async function rollBackWith(
  settings: Record<string, string>,
  ...words: string[]
): Promise<{ code: number; output: string }> {
  const url = `${platform.gatewayUrl}/function/deploy`;
  const parameters = [join(import.meta.dirname, 'rollback.ts'), '--model', 'plants', '--url', url, ...words];
  const env = { ...process.env, NODE_NO_WARNINGS: '1', ...settings };
  return run(process.execPath, parameters, { env }).then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    ({ code, stderr }) => ({ code, output: stderr }),
  );
}

async function servingVersion(): Promise<string | undefined> {
  const headers = { 'content-type': 'image/jpeg' };
  const url = `${platform.gatewayUrl}/function/predict/`;
  const response = await fetch(url, { method: 'POST', headers, body: new Uint8Array(photo) });
  return ((await response.json()) as { model?: { version: string } }).model?.version;
}

it('lets the version before serve again, and then the one that is named', async () => {
  await expect.poll(servingVersion, { timeout: 20_000 }).toBe(second);
  expect(await rollBack()).toEqual({
    code: 0,
    output: expect.stringContaining(`${first} serves plants again`),
  });
  await expect.poll(servingVersion, { timeout: 20_000 }).toBe(first);
  expect(await rollBack('--to', second)).toMatchObject({ code: 0 });
  expect((await readChampion(stores.objects, 'plants'))?.champion.version).toBe(second);
});

it('says that the version that is named serves already', async () => {
  const { champion } = (await readChampion(stores.objects, 'plants')) ?? {};
  const serving = champion?.version ?? '';
  expect(await rollBack('--to', serving)).toEqual({ code: 0, output: `${serving} serves plants already.\n` });
});

it('says what cannot be: a version that is not there, one that is none, an unknown word, no platform', async () => {
  expect(await rollBack('--to', 'v00000000ff')).toEqual({
    code: 2,
    output: expect.stringContaining('v00000000ff'),
  });
  expect(await rollBack('--to', 'latest')).toEqual({ code: 2, output: expect.stringContaining('version') });
  expect(await rollBack('--back')).toEqual({ code: 2, output: expect.stringContaining('--to VERSION') });
  const nobody = await rollBack('--url', 'http://127.0.0.1:9');
  expect(nobody).toEqual({ code: 1, output: expect.stringContaining('npm start') });
});

it('ends with 1 where deploy fails, so that a script tries again, and with 2 where it refuses', async () => {
  let status = 503;
  const failing = createServer((request, response) => {
    request.resume();
    response.writeHead(status, { 'content-type': 'application/problem+json' });
    response.end(JSON.stringify({ code: 'some-code', detail: 'Not now.' }));
  }).listen(0, '127.0.0.1');
  await once(failing, 'listening');
  const address = failing.address();
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  expect(await rollBack('--url', url)).toEqual({ code: 1, output: 'Not now.\n' });
  status = 422;
  expect(await rollBack('--url', url)).toEqual({ code: 2, output: 'Not now.\n' });
  failing.closeAllConnections();
  failing.close();
});

it('brings predict back where someone deleted its Service, once it is told which version', async () => {
  const revision = `predict-${first}`;
  const service = {
    metadata: { generation: 1 },
    spec: {},
    status: {
      observedGeneration: 1,
      traffic: [{ revisionName: revision, percent: 100, tag: 'champion' }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  };
  const labels = { 'dandelion.dev/model-version': first };
  const posted: string[] = [];
  // As deploy would answer the event: with a Service.
  const api = createServer((request, response) => {
    request.resume();
    const url = request.url ?? '';
    if (request.method === 'POST') posted.push(url);
    const found =
      request.method === 'POST'
        ? {}
        : url.endsWith('/services/predict') && posted.length > 0
          ? service
          : url.endsWith(`/revisions/${revision}`) && { metadata: { labels } };
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(found || {}));
  }).listen(0, '127.0.0.1');
  await once(api, 'listening');
  const address = api.address();
  const server = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'test', users: [] },
    // Without it the client refuses plain HTTP.
    clusters: [{ name: 'test', cluster: { server, 'insecure-skip-tls-verify': true } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: '', namespace: 'plants' } }],
  };
  const kubeconfig = join(folder, 'kubeconfig.json');
  await writeFile(kubeconfig, JSON.stringify(config));
  const onCluster = (...words: string[]) => rollBackWith({ KUBECONFIG: kubeconfig }, '--cluster', ...words);
  const unnamed = await onCluster();
  expect(unnamed).toEqual({ code: 2, output: expect.stringContaining('say which is to with --to') });
  expect(posted).toEqual([]);
  expect(await onCluster('--to', first)).toEqual({ code: 0, output: `${first} serves again.\n` });
  expect(posted).toEqual([expect.stringContaining('broker-ingress')]);
  api.closeAllConnections();
  api.close();
});
