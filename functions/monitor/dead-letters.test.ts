import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { toProblem } from '../../shared/errors.ts';
import type { Event } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { claimStep, finishStep } from '../../shared/stores/steps.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import * as monitor from './handler.ts';

let stores: TestStores;
let broker: FixtureSink;
let server: Awaited<ReturnType<typeof startFunction>>;
const logged: string[] = [];

beforeAll(async () => {
  stores = await testStores();
  broker = await startSink();
  const destination = new Writable({
    write(chunk, _encoding, done) {
      logged.push(String(chunk));
      done();
    },
  });
  server = await startFunction(monitor, {
    name: 'monitor',
    env: { ...stores.env, K_SINK: broker.url },
    logger: pino(destination),
  });
});
beforeEach(async () => {
  await stores.db`delete from dead_letters`;
  broker.events.length = 0;
  broker.answer = 202;
});
afterAll(async () => {
  await server?.close();
  await broker?.close();
  await stores?.drop();
});

const poison: Event = {
  specversion: '1.0',
  ...{
    id: 'größe 1',
    source: '/test',
    type: 'dev.dandelion.model.trained.v1',
    datacontenttype: 'application/json',
  },
  ...{ data: { model: 'Löwenzahn' }, knativearrivaltime: '2026-01-01T00:00:00Z' },
};

/** As Knative hands it over. */
const asLetter = (
  event: Event,
  answer: string | null = '{"code":"bad-data","detail":"No metrics."}',
): Event => ({
  ...event,
  ...{
    knativeerrordest: 'http://evaluate.shop.svc.cluster.local',
    knativeerrorcode: 422,
    knativebrokerttl: 254,
  },
  ...(answer === null ? {} : { knativeerrordata: Buffer.from(answer).toString('base64') }),
});

const bury = (event: Event) => {
  const { headers, body } = encodeBinary(event);
  return fetch(`${server.url}/dead-letters`, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
};
// biome-ignore lint/suspicious/noExplicitAny: answers are looked into by path, and expectations say what they must be
const get = async (path = '/dead-letters', method = 'GET'): Promise<any> => {
  const response = await fetch(`${server.url}${path}`, { method });
  return { httpStatus: response.status, ...((await response.json()) as object) };
};
const waiting = async (query = '') => (await get(`/dead-letters${query}`)).deadLetters;

describe('dead letters', () => {
  it('are kept with their cause, and shown without what the broker wrote on them', async () => {
    expect((await bury(asLetter(poison))).status).toBe(204);
    const [letter, ...others] = await waiting();
    expect(others).toEqual([]);
    expect(letter).toMatchObject({
      ...{
        destination: 'http://evaluate.shop.svc.cluster.local',
        status: 422,
        cause: 'bad-data: No metrics.',
      },
      ...{ occurrences: 1, replays: 0, event: poison },
    });
    expect(Object.keys(letter.event).filter((name) => name.startsWith('knativeerror'))).toEqual([]);
    expect(await get(`/dead-letters/${letter.id}`)).toMatchObject({ id: letter.id, event: poison });
  });

  it.each([
    ['words of another server', 'upstream connect error', 'upstream connect error'],
    ['a problem that was cut off', '{"code":"bad-data","det', '{"code":"bad-data","det'],
    ['a NUL', 'a\0b', 'a\uFFFDb'],
    ['nothing', null, 'HTTP status 422'],
  ])('keep %s as the cause', async (_what, answer, cause) => {
    await bury(asLetter(poison, answer));
    expect(await waiting()).toMatchObject([{ cause }]);
  });

  it('keep an event with bytes as it was', async () => {
    await bury(asLetter({ ...poison, data: Buffer.from([0, 255, 7]), datacontenttype: 'image/png' }));
    const [{ id }] = await waiting();
    await get(`/dead-letters/${id}/replay`, 'POST');
    expect(broker.events[0]?.data).toEqual(Buffer.from([0, 255, 7]));
  });

  it('are sent again as they were, and wait no longer unless they come back', async () => {
    await bury(asLetter(poison));
    const [{ id }] = await waiting();
    expect(await get(`/dead-letters/${id}/replay`, 'POST')).toMatchObject({ httpStatus: 200, replays: 1 });
    expect(broker.events).toMatchObject([{ id: poison.id, source: poison.source, data: poison.data }]);
    expect(broker.events[0]).not.toHaveProperty('knativeerrordest');
    expect(await waiting()).toEqual([]);
    expect(await waiting('?all=true')).toHaveLength(1);
    await bury(asLetter(poison, 'again'));
    expect(await waiting()).toMatchObject([{ id, occurrences: 2, replays: 1, cause: 'again' }]);
  });

  it('are worked on anew although the ledger holds a final refusal', async () => {
    const claim = { function: 'evaluate', owner: 'test', leaseMs: 1000, event: poison };
    const { run } = await claimStep(stores.db, claim);
    const problem = toProblem(new Error('refused'));
    await finishStep(stores.db, run, { status: 'failed', problem, final: true });
    expect((await claimStep(stores.db, claim)).claimed).toBe(false);
    await bury(asLetter(poison));
    const [{ id }] = await waiting();
    await get(`/dead-letters/${id}/replay`, 'POST');
    expect(await claimStep(stores.db, claim)).toMatchObject({ claimed: true, run: { attempt: 2 } });
  });

  it('stay where they are when the broker does not take them', async () => {
    await bury(asLetter(poison));
    const [{ id }] = await waiting();
    broker.answer = 503;
    expect(await get(`/dead-letters/${id}/replay`, 'POST')).toMatchObject({
      ...{ httpStatus: 503, code: 'upstream-unavailable' },
    });
    expect(await waiting()).toMatchObject([{ id, replays: 0 }]);
  });

  it('are in the log at level error, whole, when they cannot be stored', async () => {
    await stores.db`alter table dead_letters rename to elsewhere`;
    logged.length = 0;
    try {
      expect((await bury(asLetter(poison))).status).toBe(500);
      await fetch(`${server.url}/dead-letters`, { method: 'POST', body: 'no event at all' });
    } finally {
      await stores.db`alter table elsewhere rename to dead_letters`;
    }
    const lines = logged
      .map((line) => JSON.parse(line))
      .filter((line) => line['event.original'] !== undefined);
    expect(lines.map(({ level }) => level)).toEqual([50, 50]);
    expect(JSON.parse(lines[0]['event.original'])).toMatchObject({ id: poison.id, data: poison.data });
    expect(lines[1]['event.original']).toBe('no event at all');
  });

  it('that are not there are named so', async () => {
    expect(await get(`/dead-letters/${'0'.repeat(32)}`)).toMatchObject({ code: 'dead-letter-unknown' });
    expect(await get('/dead-letters/x')).toMatchObject({ code: 'not-found' });
    expect(await get('/dead-letters?limit=0')).toMatchObject({ code: 'bad-request' });
  });
});
