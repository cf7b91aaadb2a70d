import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Event, noticeIdOf, runIdOf } from '../events.ts';
import { claimNotices, purgeNotices } from '../stores/outbox.ts';
import { claimStep, findStep, finishStep, takeOverStep } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { encodeBinary } from './cloudevents.ts';
import { slow, stepEvent, telling } from './fixtures/functions.ts';
import { type FixtureSink, startSink } from './fixtures/sink.ts';
import { invoke, startFunction } from './testing.ts';
import type { FunctionModule } from './types.ts';

let database: TestDatabase;
const open: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
  await database.db`delete from outbox`;
});
afterAll(() => database.drop());

async function opened<Each extends { close(): Promise<void> }>(starting: Promise<Each>): Promise<Each> {
  const each = await starting;
  open.push(each);
  return each;
}

const sinkOf = (options: Parameters<typeof startSink>[0] = {}) => opened(startSink(options));

/** Quick enough that a test sees a claim expire. */
const quick = { LEASE_MS: '1000', HEARTBEAT_MS: '200', SWEEP_MS: '100' };

function startTelling(sink: Pick<FixtureSink, 'url'> | undefined, env: Record<string, string> = {}) {
  const bound = sink === undefined ? {} : { K_SINK: sink.url };
  return opened(
    startFunction(telling, {
      name: 'telling',
      env: { DATABASE_URL: database.url, ...quick, ...bound, ...env },
    }),
  );
}

function post(url: string, event: Event) {
  const { headers, body } = encodeBinary(event);
  return fetch(url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
}

const waiting = () => database.db<{ id: string; refusal: string | null }[]>`
  select id, refusal from outbox order by position`;
const metric = async (url: string, outcome: string) => {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^faas_notices_total\\{outcome="${outcome}".* (\\d+)$`, 'm').exec(text)?.[1]);
};
const idsOf = (event: Event) =>
  [0, 1].map((ordinal) => noticeIdOf('telling', event.source, event.id, ordinal));

describe('notices of a durable step', () => {
  it('reach the sink beside the result, with ids of function, input and place', async () => {
    const sink = await sinkOf();
    const pod = await startTelling(sink);
    const event = stepEvent('told');
    expect((await post(pod.url, event)).status).toBe(200);
    await expect.poll(() => sink.events.length).toBe(2);
    expect(sink.events.map(({ id }) => id).sort()).toEqual(idsOf(event).sort());
    expect(sink.events.find(({ subject }) => subject === 'first')).toMatchObject({
      ...{ type: 'dev.dandelion.told.v1', source: '/dandelion/functions/telling', data: { attempt: 1 } },
      ...{ datacontenttype: 'application/json', traceparent: expect.any(String), time: expect.any(String) },
    });
    await expect.poll(waiting).toEqual([]);
    await expect.poll(() => metric(pod.url, 'sent')).toBe(2);
  });

  it('are not emitted again by a repeat that the ledger answers, and carry the same ids when a retry does', async () => {
    const sink = await sinkOf();
    const pod = await startTelling(sink);
    const event = stepEvent('again');
    await post(pod.url, event);
    await post(pod.url, event);
    await expect.poll(() => sink.events.length).toBe(2);
    const run = `${pod.url}/runs/${runIdOf('telling', event.source, event.id)}`;
    await fetch(`${run}/retry`, { method: 'POST' });
    await expect.poll(() => sink.events.length).toBe(4);
    expect(new Set(sink.events.map(({ id }) => id))).toEqual(new Set(idsOf(event)));
  });

  it('tell of an attempt whose outcome stands, and of no other', async () => {
    const sink = await sinkOf();
    const pod = await startTelling(sink);
    const event = stepEvent('second', { fail: 'store-unavailable', failUntil: 2 });
    expect((await post(pod.url, event)).status).toBe(503);
    expect(await waiting()).toEqual([]);
    expect((await post(pod.url, event)).status).toBe(200);
    await expect.poll(() => sink.events.map(({ data }) => data)).toEqual([{ attempt: 2 }, { attempt: 2 }]);
    await post(pod.url, stepEvent('refused', { fail: 'no-images' }));
    await expect.poll(() => sink.events.length).toBe(4);
  });

  it('are written with the outcome or not at all: an attempt that lost its lease tells nothing', async () => {
    const lease = { function: 'telling', leaseMs: 60_000 };
    const event = stepEvent('fenced');
    const { run } = await claimStep(database.db, { ...lease, owner: 'stale', event });
    await database.db`update steps set lease_until = now() - interval '1 s' where id = ${run.id}`;
    const fresh = await takeOverStep(database.db, { ...lease, owner: 'fresh', id: run.id });
    const outcome = { status: 'succeeded', result: undefined } as const;
    expect(await finishStep(database.db, run, outcome, [{ id: 'n', event: stepEvent('n') }])).toBe(false);
    expect(await waiting()).toEqual([]);
    expect(await finishStep(database.db, fresh ?? run, outcome, [{ id: 'n', event: stepEvent('n') }])).toBe(
      true,
    );
    expect(await waiting()).toMatchObject([{ id: 'n' }]);
  });

  it('outlast a sink that is down', async () => {
    const down = await startSink();
    await down.close();
    const pod = await startTelling(down);
    await post(pod.url, stepEvent('patient'));
    const tries = async () =>
      (await database.db<{ tries: number }[]>`select tries from outbox`)[0]?.tries ?? 0;
    await expect.poll(tries, { timeout: 10_000 }).toBeGreaterThan(1);
    const up = await sinkOf({ port: Number(new URL(down.url).port) });
    await expect.poll(() => new Set(up.events.map(({ id }) => id)).size, { timeout: 20_000 }).toBe(2);
    await expect.poll(waiting).toEqual([]);
  });

  it('do not keep the pod once somebody else has sent them', async () => {
    const sink = await sinkOf({ answer: 503 });
    const pod = await startTelling(sink);
    await post(pod.url, stepEvent('elsewhere'));
    await expect.poll(() => sink.events.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(2);
    const held = fetch(`${pod.url}/outbox?wait=60s`).then(({ status }) => status);
    // As another pod or the monitor does when it has sent them.
    await database.db`delete from outbox`;
    const soon = sleep(10_000, 'still held', { ref: false });
    expect(await Promise.race([held, soon])).toBe(204);
  });

  it.each([500, 503, 404, 408, 409, 429])('are tried again after %i', async (status) => {
    const sink = await sinkOf({ answer: status });
    const pod = await startTelling(sink);
    await post(pod.url, stepEvent(`busy-${status}`));
    await expect.poll(() => sink.events.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(4);
    sink.answer = 202;
    await expect.poll(waiting, { timeout: 20_000 }).toEqual([]);
  });

  it.each([400, 413, 422])('are kept with the reason, and not tried again, after %i', async (status) => {
    const sink = await sinkOf({ answer: status });
    const pod = await startTelling(sink);
    await post(pod.url, stepEvent(`refused-${status}`));
    const refusals = async () => (await waiting()).map(({ refusal }) => refusal);
    await expect.poll(refusals).toEqual([`the sink answered ${status}`, `the sink answered ${status}`]);
    expect(sink.events).toHaveLength(2);
    expect(await metric(pod.url, 'refused')).toBe(2);
  });

  it('wait until a sink is bound, 30 days at most', async () => {
    const unbound = await startTelling(undefined);
    await post(unbound.url, stepEvent('kept'));
    expect(await waiting()).toHaveLength(2);
    const sink = await sinkOf();
    await startTelling(sink);
    await expect.poll(() => sink.events.length).toBe(2);
    await expect.poll(waiting).toEqual([]);
    await post(unbound.url, stepEvent('old'));
    await database.db`update outbox set created_at = now() - interval '31 days'`;
    expect(await purgeNotices(database.db, 30 * 24 * 3_600_000)).toBe(2);
  });

  it('are claimed by one of several senders', async () => {
    const unbound = await startTelling(undefined);
    for (let event = 0; event < 10; event++) await post(unbound.url, stepEvent(`many-${event}`));
    const claim = () => claimNotices(database.db, { function: 'telling', limit: 4, leaseMs: 60_000 });
    const claimed = (await Promise.all([claim(), claim(), claim(), claim(), claim(), claim()])).flat();
    expect(new Set(claimed.map(({ position }) => position)).size).toBe(claimed.length);
    const rest = await claim();
    expect(claimed.length + rest.length).toBe(20);
  });

  it('carry what the binding wants set', async () => {
    const sink = await sinkOf();
    const pod = await startTelling(sink, { K_CE_OVERRIDES: '{"extensions":{"site":"meadow"}}' });
    await post(pod.url, stepEvent('overridden'));
    await expect.poll(() => sink.events).toMatchObject([{ site: 'meadow' }, { site: 'meadow' }]);
  });
});

describe('kill -9 between result and delivery', () => {
  it('loses no notice: the next process delivers it, as a duplicate that can be recognised', async () => {
    const sink = await sinkOf({ answer: 0 });
    const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));
    const env = {
      ...process.env,
      ...quick,
      DATABASE_URL: database.url,
      K_SINK: sink.url,
      PORT: '0',
      HOST: '',
    };
    const child = spawn(process.execPath, [entry, 'telling'], {
      env,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const [message] = (await once(child, 'message')) as [{ listening: { port: number } }];
    const url = `http://127.0.0.1:${message.listening.port}`;
    await expect.poll(async () => (await fetch(`${url}/health/ready`)).status, { timeout: 20_000 }).toBe(200);

    const event = stepEvent('killed');
    expect((await post(url, event)).status).toBe(200);
    // The sink has them, and its answer never comes.
    await expect.poll(() => sink.events.length).toBeGreaterThanOrEqual(2);
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    const run = await findStep(database.db, 'telling', runIdOf('telling', event.source, event.id));
    expect(run?.status).toBe('succeeded');
    expect(await waiting()).toHaveLength(2);

    sink.events.length = 0;
    sink.answer = 202;
    await startTelling(sink);
    await expect
      .poll(() => sink.events.map(({ id }) => id).sort(), { timeout: 20_000 })
      .toEqual(idsOf(event).sort());
    await expect.poll(waiting).toEqual([]);
  });
});

describe('notices of a function without a ledger', () => {
  const plain: FunctionModule = {
    handler(event, context) {
      context.emit({ type: 'dev.dandelion.told.v1', data: Buffer.from(event.path) });
      return 'told';
    },
  };
  const start = (env: Record<string, string>, module = plain) =>
    opened(startFunction(module, { name: 'plain', env }));

  it('leave without holding up the answer', async () => {
    const sink = await sinkOf({ answer: 0 });
    const { url } = await start({ K_SINK: sink.url });
    expect(await (await fetch(`${url}/a`)).text()).toBe('told');
    await expect.poll(() => sink.events).toMatchObject([{ data: Buffer.from('/a') }]);
  });

  it('are dropped oldest first when the buffer is full, and counted', async () => {
    const sink = await sinkOf({ answer: 503 });
    const { url } = await start({ K_SINK: sink.url, NOTICE_BUFFER: '5' });
    for (let call = 0; call < 12; call++) await fetch(`${url}/${call}`);
    await expect.poll(() => metric(url, 'dropped'), { timeout: 10_000 }).toBe(7);
    sink.events.length = 0;
    sink.answer = 202;
    await expect.poll(() => metric(url, 'sent'), { timeout: 10_000 }).toBe(5);
    const paths = new Set(sink.events.map(({ data }) => String(data)));
    expect([...paths].every((path) => Number(path.slice(1)) >= 7)).toBe(true);
  });

  it('keep their order through a failed try, so that the newest of it stay', async () => {
    const sink = await sinkOf({ answer: 0 });
    const { url } = await start({ K_SINK: sink.url, NOTICE_BUFFER: '5' });
    for (let call = 0; call < 5; call++) await fetch(`${url}/${call}`);
    await expect.poll(() => sink.events.length, { timeout: 10_000 }).toBe(1);
    await sink.release(503);
    await expect.poll(() => sink.events.length, { timeout: 10_000 }).toBe(1 + 5);
    for (let call = 5; call < 7; call++) await fetch(`${url}/${call}`);
    sink.events.length = 0;
    sink.answer = 202;
    await sink.release(503);
    await expect.poll(() => metric(url, 'sent'), { timeout: 10_000 }).toBe(5);
    expect(sink.events.map(({ data }) => String(data)).sort()).toEqual(['/2', '/3', '/4', '/5', '/6']);
  });

  it('are counted as dropped where no sink is bound', async () => {
    const { url } = await start({});
    await fetch(url);
    expect(await metric(url, 'dropped')).toBe(1);
  });

  it('are flushed when the function stops', async () => {
    const sink = await sinkOf({ answer: 503 });
    const pod = await startFunction(plain, { env: { K_SINK: sink.url } });
    await fetch(`${pod.url}/last`);
    await expect.poll(() => sink.events.length).toBeGreaterThan(0);
    sink.answer = 202;
    await pod.close();
    expect(sink.events.at(-1)).toMatchObject({ data: Buffer.from('/last') });
  });
});

it('shows what was emitted to a test', async () => {
  const event = stepEvent('seen');
  const { notices } = await invoke(telling, { event, name: 'telling' });
  expect(notices.map(({ id }) => id)).toEqual(idsOf(event));
});

it('refuses a notice that makes no CloudEvent', async () => {
  const odd: FunctionModule = { ...slow, handler: (_event, context) => context.emit({ type: '' }) };
  expect(await invoke(odd)).toMatchObject({ problem: { code: 'bad-result' } });
});
