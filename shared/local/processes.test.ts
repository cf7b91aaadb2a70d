import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import { claimStep, findStep } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { openProcesses, type Processes, type ProcessesOptions } from './processes.ts';
import { writeFunction } from './testing-functions.ts';

let folder: string;
let opened: Processes[];
let database: TestDatabase | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-processes-'));
  opened = [];
});

afterEach(async () => {
  await Promise.all(opened.map((processes) => processes.stop()));
  await database?.drop();
  database = undefined;
  await rm(folder, { recursive: true, force: true });
});

function open(options: Partial<ProcessesOptions> = {}): Processes {
  const processes = openProcesses({
    distDir: join(folder, 'dist'),
    logsDir: join(folder, 'logs'),
    env: { PATH: process.env.PATH },
    logger: pino({ level: 'silent' }),
    ...options,
  });
  opened.push(processes);
  return processes;
}

const add = (name: string, body: string, before?: string) =>
  writeFunction(join(folder, 'dist'), name, body, before);

async function call(processes: Processes, name: string): Promise<string> {
  const { url, release } = await processes.acquire(name);
  try {
    return await (await fetch(`${url}/`, { method: 'POST' })).text();
  } finally {
    release();
  }
}

async function until<Value>(look: () => Value | Promise<Value>): Promise<Value> {
  for (;;) {
    const value = await look();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe('function processes', () => {
  test('start on the first request, once for all who ask at the same time', async () => {
    await add('counter', 'reply(200, {}, String(started))');
    const processes = open();
    expect(processes.running()).toEqual([]);
    expect(await processes.names()).toEqual(['counter']);
    const answers = await Promise.all(Array.from({ length: 8 }, () => call(processes, 'counter')));
    expect(new Set(answers)).toEqual(new Set(['1']));
    expect(processes.running()).toHaveLength(1);
  });

  test('get their environment and an instance id of their own', async () => {
    await add('env', 'reply(200, {}, JSON.stringify(process.env))');
    const processes = open({ env: { MODEL_NAME: 'meadow' } });
    const env = JSON.parse(await call(processes, 'env'));
    expect(env).toMatchObject({ MODEL_NAME: 'meadow', PORT: '0', HOST: '127.0.0.1' });
    expect(env.INSTANCE_ID).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('stop when idle, and start again for the next request', async () => {
    await add('sleepy', 'reply(200, {}, String(started))');
    const processes = open({ idleTimeoutMs: 50 });
    expect(await call(processes, 'sleepy')).toBe('1');
    await until(() => processes.running().length === 0);
    expect(await call(processes, 'sleepy')).toBe('2');
  });

  test('stay up while a request is worked, however long idle functions may stay', async () => {
    await add('slow', 'await sleep(400); reply(200, {}, String(process.pid))');
    const processes = open({ idleTimeoutMs: 20 });
    const [first, second] = await Promise.all([call(processes, 'slow'), call(processes, 'slow')]);
    expect(first).toBe(second);
  });

  test('stay up while the ledger says that they work on a run', async () => {
    database = await testDatabase();
    await add('busy', 'reply(200, {}, process.env.INSTANCE_ID)');
    const processes = open({ idleTimeoutMs: 30, db: database.db });
    const owner = await call(processes, 'busy');
    const event: Event = { specversion: '1.0', id: '1', source: '/test', type: 'test' };
    const { run } = await claimStep(database.db, { function: 'busy', owner, leaseMs: 60_000, event });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(processes.running()).toHaveLength(1);
    await database.db`update steps set status = 'succeeded', finished_at = now(), lease_owner = null where id = ${run.id}`;
    await until(() => processes.running().length === 0);
  });

  test('start again after a crash', async () => {
    await add('fragile', "if (started === 1) process.kill(process.pid, 'SIGKILL'); reply(200, {}, 'well')");
    const processes = open();
    await expect(call(processes, 'fragile')).rejects.toThrow();
    await until(() => processes.running().length === 0);
    expect(await call(processes, 'fragile')).toBe('well');
  });

  test('hand back the leases of a crashed process, and a new one is there to take them', async () => {
    database = await testDatabase();
    const { db } = database;
    await add(
      'worker',
      "if (request.url === '/die') process.exit(7); reply(200, {}, process.env.INSTANCE_ID)",
    );
    const processes = open({ db });
    const owner = await call(processes, 'worker');
    const event: Event = { specversion: '1.0', id: '1', source: '/test', type: 'test' };
    const { run } = await claimStep(db, { function: 'worker', owner, leaseMs: 60_000, event });
    const { url, release } = await processes.acquire('worker');
    await expect(fetch(`${url}/die`)).rejects.toThrow();
    release();
    const handedBack = await until(async () => {
      const found = await findStep(db, 'worker', run.id);
      return found?.status === 'queued' ? found : undefined;
    });
    expect(handedBack?.abandoned).toBe(true);
    await until(() => processes.running().length === 1);
    expect(await call(processes, 'worker')).not.toBe(owner);
  });

  test('say in the error why they do not start, and are tried less and less often', async () => {
    await add('broken', '', "throw new Error('the sky is missing');");
    const processes = open();
    const attempt = () => processes.acquire('broken').catch((error: unknown) => error);
    expect(await attempt()).toMatchObject({
      code: 'upstream-unavailable',
      message: expect.stringContaining('the sky is missing'),
    });
    await attempt();
    expect(await attempt()).toMatchObject({ code: 'upstream-unavailable', retryAfterMs: expect.any(Number) });
    expect(await readFile(join(folder, 'dist', 'broken', 'starts'), 'utf8')).toBe('..');
  });

  test('are given up when they are not ready in time', async () => {
    await add('silent', '', 'setInterval(() => {}, 1000); await new Promise(() => {});');
    const processes = open({ startTimeoutMs: 300 });
    await expect(processes.acquire('silent')).rejects.toMatchObject({ code: 'upstream-unavailable' });
  });

  test('write what they say into their log, not into the terminal', async () => {
    await add('talker', "console.log('a line'); console.error('another'); reply(200)");
    const processes = open();
    await call(processes, 'talker');
    await processes.stop();
    const log = await readFile(join(folder, 'logs', 'talker.log'), 'utf8');
    expect(log).toContain('a line\n');
    expect(log).toContain('another\n');
  });

  test('answer what they have begun before they stop', async () => {
    await add('thorough', "await sleep(300); reply(200, {}, 'done')");
    const processes = open();
    await call(processes, 'thorough');
    const answer = call(processes, 'thorough');
    await until(() => processes.running()[0]?.inFlight === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await processes.stop();
    expect(await answer).toBe('done');
    await expect(processes.acquire('thorough')).rejects.toMatchObject({ code: 'shutting-down' });
  });

  test('are killed when they do not stop in the grace period', async () => {
    await add('stubborn', 'reply(200)', "process.on('SIGTERM', () => {});");
    const processes = open({ graceMs: 100 });
    await call(processes, 'stubborn');
    await processes.stop();
    expect(processes.running()).toEqual([]);
  });

  test.each(['nothing', '../dist', 'UPPER', ''])('that do not exist are not started: "%s"', async (name) => {
    await expect(open().acquire(name)).rejects.toMatchObject({ code: 'not-found' });
  });
});
