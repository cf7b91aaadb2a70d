import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Socket,
  type Server as TcpServer,
} from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { emptyDatabase } from '../stores/testing.ts';
import { examine, runDoctor } from './testing-doctor.ts';

let folder: string;
const servers: (Server | TcpServer)[] = [];
const sockets = new Set<Socket>();
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-doctor-'));
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) {
    if ('closeAllConnections' in server) server.closeAllConnections();
    server.close();
  }
  await rm(folder, { recursive: true, force: true });
});

/** A server that answers paths with JSON, and everything else with 404. */
async function serve(
  answers: Record<string, { status?: number; body: unknown }>,
  headers: Record<string, string> = {},
): Promise<string> {
  const server = createServer((request, response) => {
    const { status = 200, body } = answers[request.url ?? ''] ?? { status: 404, body: {} };
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
}

test('all is well on a machine where nothing is configured', async () => {
  const { code, stdout } = await runDoctor(folder, {});
  expect(code).toBe(0);
  expect(stdout).toMatch(/^PostgreSQL +ok +18\.\d+; embedded/m);
  expect(stdout).toMatch(/^Elasticsearch +not configured/m);
  expect(stdout).not.toContain('\u001b');
  expect(await readdir(folder)).toEqual([]);
});

test('says version and latency of services that answer', async () => {
  const database = await emptyDatabase();
  const url = await serve({
    '/api/status': { body: { version: { number: '9.5.1' }, status: { overall: { level: 'available' } } } },
    '/api/v2/version': { body: { version: '3.1.0' } },
    '/api/v2/monitor/health': { body: { scheduler: { status: 'healthy' } } },
    '/broker': { status: 400, body: {} },
  });
  const env = { DATABASE_URL: database.url, KIBANA_URL: url, AIRFLOW_URL: url, K_SINK: `${url}/broker` };
  const { code, of } = await examine(folder, env);
  await database.drop();
  expect(code).toBe(0);
  expect(of('PostgreSQL')).toMatchObject({
    status: 'ok',
    version: expect.stringMatching(/^18\./),
    latencyMs: expect.any(Number),
    detail: expect.stringContaining('migrations are due'),
  });
  expect(of('Kibana')).toMatchObject({ status: 'ok', version: '9.5.1' });
  expect(of('Airflow')).toMatchObject({ status: 'ok', version: '3.1.0' });
  expect(of('Broker')).toMatchObject({ status: 'ok' });
  expect(of('Clocks')).toMatchObject({ status: 'ok', detail: expect.stringContaining('Kibana') });
});

test('says what is wrong with each that does not, and the cure', async () => {
  const dead = await serve({});
  await new Promise((closed) => servers.pop()?.close(closed));
  const database = new URL(process.env.TEST_DATABASE_URL ?? '');
  database.pathname = '/there-is-none';
  const config = join(folder, 'kubeconfig');
  const cluster = { clusters: [{ name: 'a', cluster: { server: dead } }], users: [{ name: 'a', user: {} }] };
  const contexts = [{ name: 'a', context: { cluster: 'a', user: 'a' } }];
  await writeFile(config, JSON.stringify({ ...cluster, contexts, 'current-context': 'a' }));
  const { code, ok, of } = await examine(folder, {
    DATABASE_URL: database.href,
    S3_ENDPOINT: dead,
    AWS_ACCESS_KEY_ID: 'somebody',
    AWS_SECRET_ACCESS_KEY: 'secret-word',
    MLFLOW_TRACKING_URI: dead,
    ELASTICSEARCH_URL: dead.replace('//', '//somebody:secret-word@'),
    KIBANA_URL: dead,
    AIRFLOW_URL: dead,
    K_SINK: dead,
    KUBECONFIG: config,
  });
  expect([code, ok]).toEqual([1, false]);
  const expected = {
    PostgreSQL: ['database-refused', 'DATABASE_URL'],
    'Object store': ['store-unavailable', 'S3_ENDPOINT'],
    Tracking: ['store-unavailable', 'MLFLOW_TRACKING_URI'],
    Elasticsearch: ['store-unavailable', 'ELASTICSEARCH_URL'],
    Kibana: ['store-unavailable', 'KIBANA_URL'],
    Airflow: ['store-unavailable', 'AIRFLOW_URL'],
    Broker: ['store-unavailable', 'K_SINK'],
    Kubernetes: ['cluster-unavailable', 'KUBECONFIG'],
  };
  for (const [name, [trouble, word]] of Object.entries(expected)) {
    const detail = expect.stringContaining(word ?? '');
    expect(of(name)).toMatchObject({ status: 'trouble', code: trouble, detail });
    expect(of(name)?.detail).not.toContain('secret-word');
  }
});

test('names a wrong password of PostgreSQL and the cure, and does not show it', async () => {
  const url = new URL(process.env.TEST_DATABASE_URL ?? '');
  url.password = 'not-the-password';
  const { code, of } = await examine(folder, { DATABASE_URL: url.href });
  expect(code).toBe(1);
  expect(of('PostgreSQL')).toMatchObject({
    ...{ status: 'trouble', code: 'database-refused' },
    detail: expect.stringMatching(/refuses the user ".*": set user and password in DATABASE_URL right/),
  });
  expect(of('PostgreSQL')?.detail).not.toContain('not-the-password');
});

test('tells a clock that differs, and a server of another kind', async () => {
  const url = await serve({}, { date: new Date(Date.now() - 120_000).toUTCString() });
  const broker = await serve(
    { '/': { status: 400, body: {} } },
    { date: new Date(Date.now() - 120_000).toUTCString() },
  );
  const { code, of } = await examine(folder, { KIBANA_URL: url, K_SINK: broker });
  expect(code).toBe(1);
  expect(of('Kibana')).toMatchObject({ code: 'bad-config', detail: expect.stringContaining('404') });
  expect(of('Clocks')).toMatchObject({
    code: 'clock-skewed',
    detail: expect.stringMatching(/Broker is \d+ s behind/),
  });
});

test('refuses settings that cannot be right, naming the variable', async () => {
  const wrong = await runDoctor(folder, { KIBANA_URL: 'kibana:5601' });
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('KIBANA_URL')]);
  const half = await runDoctor(folder, { S3_ENDPOINT: 'http://127.0.0.1:9', AWS_ACCESS_KEY_ID: 'a' });
  expect([half.code, half.stderr]).toEqual([2, expect.stringContaining('AWS_SECRET_ACCESS_KEY')]);
});

/** Listens on a free port, for as long as the test takes. @returns host and port */
async function listen(meet: (socket: Socket) => void): Promise<string> {
  const server = createTcpServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    meet(socket);
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The way to a PostgreSQL that lets us in, and hangs from then on. */
function listenBefore({ hostname, port }: URL): Promise<string> {
  const readyForQuery = Buffer.from('Z\0\0\0\x05I', 'latin1');
  return listen((near) => {
    const far = connect(Number(port), hostname).on('error', () => {});
    sockets.add(far);
    near.pipe(far);
    far.on('data', (chunk) => {
      near.write(chunk);
      if (chunk.includes(readyForQuery)) near.unpipe(far).resume();
    });
  });
}

test('names each server that hangs and the setting that names it, and comes to its end', async () => {
  const place = await listen((socket) => void socket.resume());
  const database = await emptyDatabase();
  const url = new URL(database.url);
  url.host = await listenBefore(new URL(database.url));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(
    kubeconfig,
    `{"apiVersion": "v1", "kind": "Config", "current-context": "a", "users": [{"name": "a", "user": {}}],
      "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
      "clusters": [{"name": "a", "cluster": {"server": "https://${place}"}}]}`,
  );
  const http = [
    'S3_ENDPOINT',
    'MLFLOW_TRACKING_URI',
    'ELASTICSEARCH_URL',
    'KIBANA_URL',
    'K_SINK',
    'AIRFLOW_URL',
  ];
  const env = {
    ...Object.fromEntries(http.map((variable) => [variable, `http://${place}`])),
    ...{ AWS_ACCESS_KEY_ID: 'me', AWS_SECRET_ACCESS_KEY: 'secret' },
    ...{ DATABASE_URL: url.href, KUBECONFIG: kubeconfig },
  };
  const { code, checks } = await examine(folder, env);
  const told = checks.filter(({ status }) => status === 'trouble').map(({ detail }) => detail);
  expect(told).toHaveLength(http.length + 2);
  for (const variable of http) expect(told).toContainEqual(expect.stringMatching(`${place}.*${variable}`));
  expect(told).toContainEqual(expect.stringMatching(`${url.host}.*DATABASE_URL`));
  expect(told).toContainEqual(expect.stringMatching(`${place}.*KUBECONFIG`));
  expect(code).toBe(1);
  await database.drop();
}, 180_000);
