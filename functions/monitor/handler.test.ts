import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvent, type Event, type PredictionRecord } from '../../shared/events.ts';
import { encodeBinary, toJsonEvent } from '../../shared/function/cloudevents.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { countPredictions } from '../../shared/stores/predictions.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import * as monitor from './handler.ts';

let stores: TestStores;
let server: Awaited<ReturnType<typeof startFunction>>;

beforeAll(async () => {
  stores = await testStores();
  server = await startFunction(monitor, { name: 'monitor', env: stores.env });
});
afterAll(async () => {
  await server?.close();
  await stores?.drop();
});

const post = (event: Event, path = '/') => {
  const { headers, body } = encodeBinary(event);
  return fetch(`${server.url}${path}`, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
};

const record = (id: string, fields: Partial<PredictionRecord> = {}): PredictionRecord => ({
  ...{ id, time: new Date().toISOString(), model: { name: 'plants', version: 'v0000000001' } },
  ...{ revision: null, outcome: 'answered', code: null, label: 'grass', scores: { grass: 0.9 } },
  ...{ latencyMs: 8, weight: 1, input: { brightness: 0.4 } },
  ...fields,
});
const notice = (id: string, records: PredictionRecord[]) =>
  createEvent({
    type: 'dev.dandelion.predictions.made.v1',
    source: '/dandelion/functions/predict',
    id,
    data: { records },
  });
const counted = async (model: string) =>
  (await countPredictions(stores.db, { model, since: new Date(0) })).reduce(
    (sum, row) => sum + row.answered,
    0,
  );

describe('monitor with the prediction log', () => {
  it('stores the records of a notice once, answering nothing, as a broker wants it', async () => {
    const event = notice('once', [record('r1'), record('r2')]);
    for (let time = 0; time < 2; time++) {
      const response = await post(event);
      expect([response.status, await response.text()]).toEqual([204, '']);
    }
    expect(await counted('plants')).toBe(2);
  });

  it('takes batches of notices, each with its own outcome', async () => {
    const model = { name: 'birds', version: 'v0000000001' };
    const good = toJsonEvent(notice('good', [record('b1', { model })]));
    const bad = toJsonEvent({ ...notice('bad', [record('b2', { model })]), data: { records: [{}] } });
    const response = await fetch(server.url, {
      method: 'POST',
      headers: { 'content-type': 'application/cloudevents-batch+json' },
      body: JSON.stringify([good, bad]),
    });
    const outcomes = (await response.json()) as { status: number; problem?: { code: string } }[];
    expect(outcomes.map(({ status }) => status)).toEqual([204, 422]);
    expect(outcomes[1]?.problem?.code).toBe('bad-data');
    expect(await counted('birds')).toBe(1);
  });

  it('refuses other events for good, naming what it takes', async () => {
    const response = await post({ ...notice('other', [record('o1')]), type: 'photo.taken' });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      code: 'bad-event',
      detail: expect.stringMatching('photo.taken'),
    });
  });
});
