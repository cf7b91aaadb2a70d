import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Event, resultIdOf, runIdOf } from '../events.ts';
import { findStep } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { encodeBinary } from './cloudevents.ts';
import { type StepPlan, step, stepEvent } from './fixtures/functions.ts';
import { type FixtureSink, startSink } from './fixtures/sink.ts';
import { startFunction } from './testing.ts';

let database: TestDatabase;
let broker: FixtureSink;
let pod: { url: string; close(): Promise<void> };

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await pod.close();
  await broker.close();
});
afterAll(() => database.drop());

async function start(env: Record<string, string> = {}): Promise<void> {
  broker = await startSink();
  const quick = { LEASE_MS: '1500', HEARTBEAT_MS: '200', SWEEP_MS: '200' };
  const bySink = { RESULT_DELIVERY: 'sink', K_SINK: broker.url };
  pod = await startFunction(step, {
    name: 'step',
    env: { DATABASE_URL: database.url, ...quick, ...bySink, ...env },
  });
}

/** An event as a broker delivers it. */
function delivered(id: string, plan: StepPlan = {}): Event {
  return { ...stepEvent(id, plan), knativearrivaltime: '2026-01-01T00:00:00Z' };
}

function post(event: Event): Promise<Response> {
  const { headers, body } = encodeBinary(event);
  return fetch(pod.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
}

const runOf = (event: Event) => findStep(database.db, 'step', runIdOf('step', event.source, event.id));
const idsAtBroker = () => broker.events.map(({ id }) => id);

describe('a step that sends its results to the broker', () => {
  it('answers a delivery empty, and sends the result itself', async () => {
    await start();
    const event = delivered('quick');
    const response = await post(event);
    expect([response.status, await response.text()]).toEqual([204, '']);
    await expect.poll(idsAtBroker).toEqual([resultIdOf('step', event.source, event.id)]);
  });

  it('answers before long work is done, and sends the result when it is', async () => {
    await start();
    const event = delivered('long', { ms: 3000 });
    const response = await post(event);
    expect([response.status, await response.text()]).toEqual([202, '']);
    expect(await runOf(event)).toMatchObject({ status: 'running' });
    await expect.poll(idsAtBroker, { timeout: 10_000 }).toEqual([resultIdOf('step', event.source, event.id)]);
  });

  it('keeps a result that the broker did not take, and sends it again', async () => {
    await start();
    broker.answer = 503;
    const event = delivered('kept');
    expect((await post(event)).status).toBe(204);
    await expect.poll(() => broker.events.length).toBeGreaterThan(0);
    broker.answer = 202;
    const [waiting] = await database.db`select count(*)::int as count from outbox`;
    expect(waiting?.count).toBeLessThan(2);
    await expect.poll(() => database.db`select id from outbox`, { timeout: 10_000 }).toEqual([]);
    expect(new Set(idsAtBroker())).toEqual(new Set([resultIdOf('step', event.source, event.id)]));
  });

  it('answers a failure that comes soon with its status, and sends nothing', async () => {
    await start();
    expect((await post(delivered('refused', { fail: 'no-images' }))).status).toBe(422);
    expect((await post(delivered('trouble', { fail: 'store-unavailable' }))).status).toBe(503);
    expect(await database.db`select id from outbox`).toEqual([]);
    expect(broker.events).toEqual([]);
  });

  it('tells a failure that comes late by sending the event again, which is answered from the ledger', async () => {
    await start();
    const event = delivered('late', { ms: 2500, fail: 'no-images' });
    expect((await post(event)).status).toBe(202);
    await expect.poll(idsAtBroker, { timeout: 10_000 }).toEqual(['late']);
    const [again] = broker.events;
    const response = await post(again as Event);
    expect([response.status, await response.json()]).toMatchObject([422, { code: 'no-images' }]);
    expect(await runOf(event)).toMatchObject({ attempt: 1 });
  });

  it('lets trouble that comes late be tried again by the broker, until it is over', async () => {
    await start();
    const event = delivered('mended', { ms: 2300, fail: 'store-unavailable', failUntil: 2 });
    expect((await post(event)).status).toBe(202);
    await expect.poll(idsAtBroker, { timeout: 10_000 }).toEqual(['mended']);
    expect((await post(event)).status).toBe(202);
    await expect
      .poll(() => runOf(event), { timeout: 10_000 })
      .toMatchObject({ status: 'succeeded', attempt: 2 });
    await expect.poll(idsAtBroker).toEqual(['mended', resultIdOf('step', event.source, event.id)]);
  });

  it('answers a repeat of finished work with the result', async () => {
    await start();
    const event = delivered('repeat');
    await post(event);
    await expect.poll(() => runOf(event)).toMatchObject({ status: 'succeeded' });
    const again = await post(event);
    expect([again.status, again.headers.get('ce-id')]).toEqual([
      200,
      resultIdOf('step', event.source, event.id),
    ]);
  });

  it('hands work over through the broker when it has to stop', async () => {
    await start({ GRACE_PERIOD_MS: '0' });
    const event = delivered('handed', { ms: 60_000 });
    expect((await post(event)).status).toBe(202);
    await pod.close();
    expect(await runOf(event)).toMatchObject({ status: 'queued' });
    expect(idsAtBroker()).toEqual(['handed']);
  });

  it('replies with the result to whoever is no broker', async () => {
    await start();
    const response = await post(stepEvent('person'));
    expect([response.status, response.headers.get('ce-type')]).toEqual([200, expect.any(String)]);
    expect(broker.events).toEqual([]);
  });

  it('does not start without the address of the broker', async () => {
    await start();
    const env = { DATABASE_URL: database.url, RESULT_DELIVERY: 'sink' };
    await expect(startFunction(step, { name: 'step', env })).rejects.toMatchObject({ code: 'bad-config' });
  });
});
