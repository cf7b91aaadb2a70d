/** HTTP Protocol Binding 1.0.2, section 3.3, with the JSON Batch Format: batched content mode. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { resultIdOf, runIdOf } from '../../events.ts';
import { type TestDatabase, testDatabase } from '../../stores/testing.ts';
import { toJsonEvent } from '../cloudevents.ts';
import { step, stepEvent } from '../fixtures/functions.ts';
import { startFunction } from '../testing.ts';
import type { FunctionModule } from '../types.ts';
import { MIRROR_SOURCE, mirror, REQUIRED } from './mirror.ts';

const running: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const server of running.splice(0)) await server.close();
});

async function start(module: FunctionModule, env: Record<string, string> = {}) {
  const server = await startFunction(module, { name: 'batched', env });
  running.push(server);
  return server;
}

const BATCH = 'application/cloudevents-batch+json';

function send(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(url, { method: 'POST', headers: { 'content-type': BATCH, ...headers }, body: text });
}

const single: FunctionModule = { handler: () => undefined };

describe('a function that takes batches', () => {
  it('answers each event at its place, with the result as a document', async () => {
    const { url } = await start(mirror);
    const data_base64 = Buffer.from([0, 255]).toString('base64');
    const response = await send(url, [
      { ...REQUIRED, id: 'a', data: { a: 1 } },
      { ...REQUIRED, id: 'b', datacontenttype: 'image/png', data_base64 },
    ]);
    expect([response.status, response.headers.get('content-type')]).toEqual([
      200,
      'application/json; charset=utf-8',
    ]);
    expect(await response.json()).toEqual([
      {
        id: 'a',
        source: '/s',
        status: 200,
        result: expect.objectContaining({ source: MIRROR_SOURCE, data: { a: 1 } }),
      },
      { id: 'b', source: '/s', status: 200, result: expect.objectContaining({ data_base64 }) },
    ]);
  });

  it.each(['Application/CloudEvents-Batch+JSON', `${BATCH}; charset=UTF-8`])(
    'knows it as %s',
    async (type) => {
      const { url } = await start(mirror);
      expect(await (await send(url, [REQUIRED], { 'content-type': type })).json()).toMatchObject([
        { status: 200 },
      ]);
    },
  );

  it('takes an empty batch, which section 3.3.2 allows', async () => {
    const { url } = await start(mirror);
    const response = await send(url, []);
    expect([response.status, await response.json()]).toEqual([200, []]);
  });

  it('lets an event that fails or cannot be read spoil nothing for the others', async () => {
    const failing: FunctionModule = {
      batch: true,
      handler({ cloudEvent }) {
        if (cloudEvent?.id === 'fails') throw new Error('secret');
        return cloudEvent?.id === 'odd' ? 'no event' : undefined;
      },
    };
    const { url } = await start(failing);
    const events = ['good', 'fails', 'odd'].map((id) => ({ ...REQUIRED, id }));
    const response = await send(url, [...events, { ...REQUIRED, specversion: '0.3' }, 'text', null]);
    const text = await response.text();
    expect(response.status).toBe(200);
    expect(text).not.toContain('secret');
    expect(JSON.parse(text)).toMatchObject([
      { id: 'good', status: 204 },
      { id: 'fails', status: 500, problem: { code: 'internal' } },
      { id: 'odd', status: 500, problem: { code: 'bad-result' } },
      ...Array.from({ length: 3 }, () => ({ id: null, status: 400, problem: { code: 'bad-event' } })),
    ]);
  });

  it.each(['{}', '"x"', '[', ''])('refuses %j, no JSON array, as a whole', async (body) => {
    const { url } = await start(mirror);
    const response = await send(url, body);
    expect([response.status, await response.json()]).toMatchObject([400, { code: 'bad-event' }]);
  });

  it('works few events at a time, in one place among those in flight', async () => {
    let [now, most] = [0, 0];
    const slow: FunctionModule = {
      batch: true,
      maxInFlight: 1,
      async handler() {
        now += 1;
        most = Math.max(most, now);
        await new Promise((resolve) => setTimeout(resolve, 5));
        now -= 1;
      },
    };
    const { url } = await start(slow);
    const events = Array.from({ length: 40 }, (_, index) => ({ ...REQUIRED, id: String(index) }));
    const outcomes = (await (await send(url, events)).json()) as { id: string }[];
    expect(outcomes.map(({ id }) => id)).toEqual(events.map(({ id }) => id));
    expect(most).toBeLessThanOrEqual(8);
  });
});

describe('a function that does not', () => {
  it.each([BATCH, 'application/cloudevents-batch'])('refuses %s with 415', async (type) => {
    const { url } = await start(single);
    const response = await send(url, [REQUIRED], { 'content-type': type });
    expect([response.status, await response.json()]).toMatchObject([415, { code: 'unsupported-media-type' }]);
  });
});

describe('a durable step that takes batches', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(() => database.drop());

  const startStep = () => start({ ...step, batch: true }, { DATABASE_URL: database.url });

  it('makes a run of each event, and answers repeats from the ledger', async () => {
    const { url } = await startStep();
    const events = [stepEvent('one'), stepEvent('two', { fail: 'no-images' })];
    for (let time = 0; time < 2; time++) {
      const outcomes = await (await send(url, events.map(toJsonEvent))).json();
      expect(outcomes).toMatchObject([
        { id: 'one', status: 200, result: { id: resultIdOf('batched', '/tests', 'one') } },
        { id: 'two', status: 422, problem: { code: 'no-images' } },
      ]);
    }
    const runs = await database.db`select attempt from steps`;
    expect(runs.map(({ attempt }) => attempt)).toEqual([1, 1]);
  });

  it('gives the places of the runs with Prefer: respond-async', async () => {
    const { url } = await startStep();
    const headers = { prefer: 'respond-async', 'x-forwarded-prefix': '/function/step' };
    const response = await send(url, [toJsonEvent(stepEvent('later'))], headers);
    const location = `/function/step/runs/${runIdOf('batched', '/tests', 'later')}`;
    expect(response.headers.get('preference-applied')).toBe('respond-async');
    expect(await response.json()).toEqual([{ id: 'later', source: '/tests', status: 202, location }]);
  });
});
