import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { testDatabase } from '../stores/testing.ts';
import { openWay } from '../stores/testing-way.ts';
import { encodeBinary } from './cloudevents.ts';
import { stepEvent } from './fixtures/functions.ts';

const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));
const TEST_TIMEOUT_MS = 180_000;
/** What a buffer of Elasticsearch holds at most. */
const MOST_WAITING = 10_000;
const LINES_A_CALL = 250;
const CALLS = 200;
/** A process that kept every line would end here. */
const HEAP_MB = 96;

const children: ChildProcess[] = [];
const sockets = new Set<Socket>();
let hanging: Server | undefined;
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const socket of sockets) socket.destroy();
  hanging?.close();
});

/** Takes connections and requests, and never answers. */
async function startHangingServer(): Promise<string> {
  hanging = createServer((socket) => {
    sockets.add(socket.resume().on('error', () => {}));
  });
  hanging.listen(0, '127.0.0.1');
  await once(hanging, 'listening');
  return `http://127.0.0.1:${(hanging.address() as AddressInfo).port}`;
}

async function start(name: string, env: Record<string, string>) {
  const child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MB}`, entry, name], {
    env: { ...process.env, PORT: '0', HOST: '', LOG_LEVEL: 'info', ...env },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  children.push(child);
  child.stdout?.resume();
  const ended = once(child, 'close').then(([code]) => code as number | null);
  const [message] = (await once(child, 'message')) as [{ listening: { port: number } }];
  const url = `http://127.0.0.1:${message.listening.port}`;
  await expect.poll(async () => (await fetch(`${url}/health/ready`)).status, { timeout: 20_000 }).toBe(200);
  return { child, url, ended };
}

test(
  'an Elasticsearch that hangs holds up no request and no stop, fills no memory, and what it costs is counted',
  async () => {
    const { child, url, ended } = await start('chatty', { ELASTICSEARCH_URL: await startHangingServer() });
    for (let call = 0; call < CALLS; call++) {
      const response = await fetch(`${url}/?lines=${LINES_A_CALL}`);
      expect([response.status, await response.json()]).toEqual([200, { lines: LINES_A_CALL }]);
    }
    expect(sockets.size).toBeGreaterThan(0);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const dropped = /^faas_search_documents_total\{.*outcome="dropped".*\} (\d+)$/m.exec(metrics)?.[1];
    expect(Number(dropped)).toBeGreaterThanOrEqual(CALLS * LINES_A_CALL - MOST_WAITING);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  },
  TEST_TIMEOUT_MS,
);

test(
  'a PostgreSQL that hangs is told to who sends an event, and holds up neither health nor the stop',
  async () => {
    const database = await testDatabase();
    const way = await openWay(database.url);
    const { child, url, ended } = await start('step', {
      ...{ DATABASE_URL: way.url, DATABASE_STATEMENT_TIMEOUT_MS: '1000', GRACE_PERIOD_MS: '1000' },
    });
    const send = (id: string, ms: number) =>
      fetch(url, { method: 'POST', ...encodeBinary(stepEvent(id, { ms })) } as RequestInit);
    expect((await send('before', 0)).status).toBe(200);
    const cutOff = send('meanwhile', 60_000).catch(() => undefined);
    const runs = async () => /^faas_inflight.* 1$/m.test(await (await fetch(`${url}/metrics`)).text());
    await expect.poll(runs).toBe(true);
    way.stall();
    const answer = await send('after', 0);
    expect([answer.status, await answer.json()]).toEqual([
      503,
      expect.objectContaining({ code: 'database-unavailable' }),
    ]);
    expect((await fetch(`${url}/health/live`)).status).toBe(200);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    await cutOff;
    await way.close();
    await database.drop();
  },
  TEST_TIMEOUT_MS,
);
