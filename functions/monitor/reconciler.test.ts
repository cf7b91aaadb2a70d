import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Event } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { saveDeadLetter } from '../../shared/stores/dead-letters.ts';
import { claimStep, finishStep } from '../../shared/stores/steps.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import * as monitor from './handler.ts';

const triggers = join(import.meta.dirname, '../../knative/base/eventing');
const lease = { owner: 'test', leaseMs: 60_000 };
let stores: TestStores;
let broker: FixtureSink;

beforeAll(async () => {
  stores = await testStores();
  broker = await startSink();
});
beforeEach(async () => {
  await stores.db`delete from steps`;
  await stores.db`delete from outbox`;
  await stores.db`delete from dead_letters`;
  broker.events.length = 0;
  broker.refuses = () => false;
});
afterAll(async () => {
  await broker?.close();
  await stores?.drop();
});

const event = (id: string, type: string, attributes: Partial<Event> = {}): Event => ({
  ...{ specversion: '1.0', id, source: '/test', type: `dev.dandelion.${type}.v1`, data: { id } },
  ...{ knativearrivaltime: '2026-01-01T00:00:00Z' },
  ...attributes,
});

/** A train step whose result is there; `by` says how its input came. */
async function train(id: string, attributes: Partial<Event> = {}): Promise<Event> {
  const input = event(`in-${id}`, 'features.stored', attributes);
  const { run } = await claimStep(stores.db, { ...lease, function: 'train', event: input });
  const result = event(id, 'model.trained', { knativearrivaltime: undefined });
  await finishStep(stores.db, run, { status: 'succeeded', result });
  return result;
}

async function reconcile(graceMs: number, request = event('ask', 'reconcile.requested')): Promise<string[]> {
  const env = {
    ...stores.env,
    K_SINK: broker.url,
    TRIGGERS_DIR: triggers,
    RECONCILE_GRACE_MS: String(graceMs),
  };
  const server = await startFunction(monitor, { name: 'monitor', env });
  const { headers, body } = encodeBinary(request);
  const response = await fetch(server.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
  await server.close();
  expect(response.status).toBe(204);
  return broker.events.map(({ id }) => id);
}

it('sends a result again that did not reach its next step, and no other', async () => {
  await train('lost');
  const arrived = await train('arrived');
  await claimStep(stores.db, { ...lease, function: 'evaluate', event: arrived });
  const refused = await train('refused');
  await saveDeadLetter(stores.db, { event: refused, destination: '/evaluate', status: 400, cause: 'No.' });
  await train('of-airflow', { knativearrivaltime: undefined });
  expect(await reconcile(0)).toEqual(['lost']);
});

it('reads dead letters whatever their data holds', async () => {
  const odd = await train('odd');
  const withNul = { ...odd, data: { note: 'a\0b' } };
  await saveDeadLetter(stores.db, { event: withNul, destination: '/evaluate', status: 400, cause: 'No.' });
  await train('lost');
  expect(await reconcile(0)).toEqual(['lost']);
});

it('goes on past what the broker refuses for good', async () => {
  await train('refused');
  await train('lost');
  const input = event('left', 'features.stored');
  await claimStep(stores.db, { owner: 'dead', leaseMs: 0, function: 'train', event: input });
  broker.refuses = ({ id }) => id === 'refused';
  expect((await reconcile(0)).sort()).toEqual(['left', 'lost', 'refused']);
});

it('gives a delivery the grace period to arrive', async () => {
  await train('fresh');
  expect(await reconcile(3_600_000)).toEqual([]);
});

it('does so at the ping of a PingSource', async () => {
  await train('lost');
  expect(await reconcile(0, { ...event('ping', 'x'), type: 'dev.knative.sources.ping' })).toEqual(['lost']);
});

it('brings events back whose pods died and were not followed by another', async () => {
  const input = event('left', 'features.stored');
  await claimStep(stores.db, { owner: 'dead', leaseMs: 0, function: 'train', event: input });
  await claimStep(stores.db, { ...lease, function: 'train', event: event('worked-on', 'features.stored') });
  const called = event('called', 'features.stored', { knativearrivaltime: undefined });
  await claimStep(stores.db, { owner: 'dead', leaseMs: 0, function: 'train', event: called });
  expect(await reconcile(0)).toEqual(['left']);
  expect(await reconcile(3_600_000)).toEqual(['left']);
});

it('sends what a function left in its outbox when it went', async () => {
  const input = event('done', 'model.approved');
  const { run } = await claimStep(stores.db, { ...lease, function: 'deploy', event: input });
  const told = event('told', 'deployment.decided', { knativearrivaltime: undefined });
  const entries = [{ id: 'told', event: told }];
  await finishStep(stores.db, run, { status: 'succeeded', result: undefined }, entries);
  expect(await reconcile(3_600_000)).toEqual([]);
  expect(await reconcile(0)).toEqual(['told']);
  expect(await stores.db`select id from outbox`).toEqual([]);
});
