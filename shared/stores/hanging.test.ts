import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closeDatabases, type Database, openDatabase } from './database.ts';
import { openMlflowClient } from './mlflow-client.ts';
import { seekBucket } from './objects-s3.ts';
import { query } from './outage.ts';
import { openSearch, type Search } from './search.ts';
import { emptyDatabase, type TestDatabase, testDatabase } from './testing.ts';
import { makeCertificate } from './testing-certificate.ts';
import { openWay, type Way } from './testing-way.ts';

/** Longer than every limit in here. */
const TEST_TIMEOUT_MS = 120_000;
const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => void vi.unstubAllEnvs());
afterAll(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** Takes connections, and does with each what is said; nothing: it hangs. @returns its host and port */
async function serve(meet: (socket: Socket) => void = (socket) => void socket.resume()): Promise<string> {
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    meet(socket);
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Speaks TLS on one side, as PostgreSQL does, and hands on what is said to a server without. */
function serveTls({ hostname, port }: URL): Promise<string> {
  const certificate = makeCertificate(1);
  return serve((socket) => {
    socket.once('data', () => {
      socket.write('S');
      const near = new TLSSocket(socket, { isServer: true, ...certificate }).on('error', () => {});
      const far = connect(Number(port), hostname).on('error', () => {});
      near.pipe(far).pipe(near);
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
    });
  });
}

describe('a PostgreSQL that hangs', () => {
  let database: TestDatabase;
  let way: Way;
  beforeEach(async () => {
    vi.stubEnv('DATABASE_STATEMENT_TIMEOUT_MS', '1000');
    vi.stubEnv('DATABASE_POOL', '2');
    database = await testDatabase();
    way = await openWay(database.url);
  });
  afterEach(async () => {
    await way.open();
    await way.close();
    await database.drop();
  });
  const one = (db: Database) => query(db, () => db`select 1 as one`);

  test.each([
    ['without TLS', async () => way.url],
    [
      'with TLS',
      async () => {
        const url = new URL(way.url);
        url.host = await serveTls(url);
        return `${url.href}?sslmode=require`;
      },
    ],
  ])(
    'fails each query that waits with its name and the cure, and serves again when it is back, %s',
    async (_kind, address) => {
      const url = await address();
      const db = await openDatabase(url);
      expect(await one(db)).toEqual([{ one: 1 }]);
      way.stall();
      // More than there are connections.
      const failures = await Promise.allSettled(Array.from({ length: 5 }, () => one(db)));
      for (const failure of failures) {
        expect(failure).toMatchObject({
          status: 'rejected',
          reason: {
            ...{ code: 'database-unavailable', status: 503 },
            message: expect.stringMatching(`${new URL(url).host}.*Check DATABASE_URL`),
          },
        });
      }
      await way.open();
      await expect.poll(() => one(db), { timeout: 30_000 }).toEqual([{ one: 1 }]);
      await db.end({ timeout: 1 });
    },
    TEST_TIMEOUT_MS,
  );

  test(
    'is told when a process starts, and does not keep one that stops',
    async () => {
      way.stall();
      const opening = openDatabase(way.url);
      const failed = expect(opening).rejects.toMatchObject({ code: 'database-unavailable' });
      await closeDatabases();
      await failed;
    },
    TEST_TIMEOUT_MS,
  );
});

test(
  'a statement that keeps PostgreSQL busy for its time is no server that hangs',
  async () => {
    vi.stubEnv('DATABASE_STATEMENT_TIMEOUT_MS', '1000');
    const { url, drop } = await emptyDatabase();
    const db = await openDatabase(url);
    await expect(query(db, () => db`select pg_sleep(3)`)).rejects.toMatchObject({ code: 'database-timeout' });
    await db.end({ timeout: 1 });
    await drop();
  },
  TEST_TIMEOUT_MS,
);

// Side by side: each waits for its own limit.
describe.concurrent('over HTTP,', () => {
  const document = { stream: 'logs-dandelion.predict-default', id: '1', json: '{"message":"a line"}' };
  const open = (place: string): Search => {
    const search = openSearch({
      ...{ ELASTICSEARCH_URL: `http://${place}`, ELASTICSEARCH_NAMESPACE: 'default' },
      ...{ ELASTICSEARCH_RETENTION_DAYS: 30, LOGS_TO_ELASTICSEARCH: true },
    });
    if (search === undefined) throw new Error('no search');
    return search;
  };
  const head = 'HTTP/1.1 200 OK\r\nx-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\n';

  test.each<[string, (socket: Socket) => void]>([
    ['says nothing', (socket) => void socket.resume()],
    [
      'says that it will answer',
      (socket) => void socket.resume().write(`${head}content-length: 1000\r\n\r\n`),
    ],
    [
      'answers by a byte a second',
      (socket) => {
        socket.resume().write(`${head}content-length: 1000\r\n\r\n`);
        const timer = setInterval(() => socket.write(' '), 1000);
        socket.on('close', () => clearInterval(timer));
      },
    ],
  ])(
    'an Elasticsearch that %s is given up, by its name and with the cure',
    async (_how, meet) => {
      const place = await serve(meet);
      const search = open(place);
      await expect(search.send([document])).rejects.toMatchObject({
        code: 'store-unavailable',
        message: expect.stringMatching(`${place}.*ELASTICSEARCH_URL`),
      });
      search.close();
    },
    TEST_TIMEOUT_MS,
  );

  test(
    'an S3 server that hangs is given up, by its name and with the cure',
    async () => {
      const place = await serve();
      const settings = { S3_ENDPOINT: `http://${place}`, S3_BUCKET: 'flowers', S3_REGION: 'us-east-1' };
      const keys = { AWS_ACCESS_KEY_ID: 'me', AWS_SECRET_ACCESS_KEY: 'secret' };
      await expect(seekBucket({ ...settings, ...keys })).rejects.toMatchObject({
        code: 'store-unavailable',
        message: expect.stringMatching(`${place}.*S3_ENDPOINT`),
      });
    },
    TEST_TIMEOUT_MS,
  );

  test(
    'an MLflow that hangs is given up, by its name and with the cure',
    async () => {
      const place = await serve();
      const client = openMlflowClient({ MLFLOW_TRACKING_URI: `http://${place}` }, { patienceMs: 0 });
      await expect(client.findExperiment('plants')).rejects.toMatchObject({
        code: 'store-unavailable',
        message: expect.stringMatching(`${place}.*MLFLOW_TRACKING_URI`),
      });
    },
    TEST_TIMEOUT_MS,
  );
});
