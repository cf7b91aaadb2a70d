import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Agent, request } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runIdOf } from '../events.ts';
import { findStep } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { encodeBinary } from './cloudevents.ts';
import { stepEvent } from './fixtures/functions.ts';

const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));
const children: ChildProcess[] = [];
let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => database.drop());

interface Started {
  child: ChildProcess;
  url: string;
  ended: Promise<number | null>;
  /** Standard output so far. */
  log(): string;
}

function launch(name: string, env: Record<string, string> = {}): Omit<Started, 'url'> {
  const child = spawn(process.execPath, [entry, name], {
    env: { ...process.env, PORT: '0', HOST: '', LOG_LEVEL: 'info', GRACE_PERIOD_MS: '120000', ...env },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  children.push(child);
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += String(chunk);
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, ended, log: () => text };
}

async function start(name: string, env: Record<string, string> = {}): Promise<Started> {
  const started = launch(name, env);
  const [message] = (await once(started.child, 'message')) as [{ listening: { port: number } }];
  const url = `http://127.0.0.1:${message.listening.port}`;
  await expect.poll(async () => (await fetch(`${url}/health/ready`)).status, { timeout: 20_000 }).toBe(200);
  return { ...started, url };
}

describe('SIGTERM', () => {
  it('loses none of 20 requests in flight on kept connections, then ends with 0', async () => {
    const { child, url, ended, log } = await start('slow');
    const dispatcher = new Agent({ connections: 20, keepAliveTimeout: 60_000 });
    const call = async (ms: number) => {
      const { statusCode, body } = await request(`${url}/?ms=${ms}`, { dispatcher });
      return [statusCode, await body.json()];
    };
    await Promise.all(Array.from({ length: 20 }, () => call(1)));
    const answers = Promise.all(Array.from({ length: 20 }, () => call(1000)));
    const inFlight = async () => /^faas_inflight.* 20$/m.test(await (await fetch(`${url}/metrics`)).text());
    await expect.poll(inFlight).toBe(true);
    child.kill('SIGTERM');
    expect(await answers).toEqual(Array.from({ length: 20 }, () => [200, { waitedMs: 1000 }]));
    expect(await ended).toBe(0);
    expect(log()).toContain('"message":"stopped"');
    await dispatcher.close();
  });

  it('is obeyed while nothing happens, although clients keep connections, used and unused', async () => {
    const { child, url, ended } = await start('slow');
    const unused = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {});
    await once(unused, 'connect');
    const dispatcher = new Agent({ keepAliveTimeout: 60_000 });
    await (await request(`${url}/?ms=1`, { dispatcher })).body.dump();
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    await dispatcher.close();
  });
});

describe('a parent that is gone', () => {
  it('takes the function with it, gracefully', async () => {
    const { child, url } = await start('slow');
    const ended = once(child, 'exit');
    const answer = fetch(`${url}/?ms=500`);
    const inFlight = async () => /^faas_inflight.* 1$/m.test(await (await fetch(`${url}/metrics`)).text());
    await expect.poll(inFlight).toBe(true);
    child.disconnect();
    expect((await answer).status).toBe(200);
    expect(await ended).toEqual([0, null]);
  });
});

describe('a parent that was killed', () => {
  it.each(['slow', 'step'])(
    'takes the function with it although nobody reads its log any more: %s',
    async (name) => {
      const { child, url } = await start(name, { DATABASE_URL: database.url });
      const ended = once(child, 'exit');
      child.stdout?.destroy();
      // Lines that meet the closed pipe before the stop and after it.
      await (await fetch(url)).text();
      child.disconnect();
      expect(await ended).toEqual([0, null]);
    },
  );
});

describe('kill -9 in the middle of a durable run', () => {
  it('lets another process take it over after the lease, and writes one result', async () => {
    const env = {
      DATABASE_URL: database.url,
      LEASE_MS: '1000',
      HEARTBEAT_MS: '200',
      SWEEP_MS: '200',
    };
    const [first, second] = [await start('step', env), await start('step', env)];
    const event = stepEvent('killed', { ms: 1500 });
    const { headers, body } = encodeBinary(event);
    const post = (url: string) => fetch(url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
    const lost = post(first.url).catch(() => 'connection lost');
    const run = () => findStep(database.db, 'step', runIdOf('step', event.source, event.id));
    await expect.poll(async () => (await run())?.status).toBe('running');
    first.child.kill('SIGKILL');
    expect(await lost).toBe('connection lost');
    const answer = await post(second.url);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ metrics: { images: 2 } });
    expect(await run()).toMatchObject({ status: 'succeeded', attempt: 2 });
    const written = await database.db<{ count: number }[]>`select count(*)::int from steps`;
    expect(written[0]?.count).toBe(1);
  });
});

describe('a start that fails', () => {
  it('says which port is taken, and ends with 1', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const address = blocker.address();
    const port = typeof address === 'object' ? String(address?.port) : '';
    const { ended, log } = launch('slow', { PORT: port });
    expect(await ended).toBe(1);
    expect(log()).toContain('port-in-use');
    expect(log()).toContain(`Port ${port} is taken`);
    blocker.close();
  });

  it.each([
    ['a durable step without its ledger', 'step', { DATABASE_URL: '' }, 'DATABASE_URL', 2],
    [
      'a ledger that does not answer',
      'step',
      { DATABASE_URL: 'postgres://x@127.0.0.1:1/x' },
      'database-unavailable',
      1,
    ],
    ['a wrong setting', 'slow', { PORT: 'http' }, 'PORT', 2],
    ['other machines let in without a token', 'slow', { HOST: '0.0.0.0' }, 'DANDELION_TOKEN', 2],
  ])(
    'tells a parent whether its settings are wrong, and says why: %s',
    async (_name, name, env, words, code) => {
      const { ended, log } = launch(name, env);
      expect(await ended).toBe(code);
      expect(log()).toContain(words);
      expect(log()).toContain('"log.level":"fatal"');
    },
  );
});
