import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEvent, type PredictionRecord } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { type BulkServer, startBulkServer } from '../../shared/stores/testing-search.ts';
import * as monitor from './handler.ts';

let stores: TestStores;
let elasticsearch: BulkServer;
let server: Awaited<ReturnType<typeof startFunction>>;

beforeEach(async () => {
  [stores, elasticsearch] = await Promise.all([testStores(), startBulkServer()]);
  const env = { ...stores.env, ELASTICSEARCH_URL: elasticsearch.url };
  server = await startFunction(monitor, { name: 'monitor', env });
});
afterEach(async () => {
  await server.close();
  await elasticsearch.close();
  await stores.drop();
});

const record = (id: string, fields: Partial<PredictionRecord> = {}): PredictionRecord => ({
  ...{ id, time: new Date().toISOString(), model: { name: 'plants', version: 'v0000000001' } },
  ...{ revision: null, outcome: 'answered', code: null, label: 'grass', scores: { grass: 0.9 } },
  ...{ latencyMs: 8, weight: 1, input: { brightness: 0.4 } },
  ...fields,
});

async function deliver(records: PredictionRecord[]): Promise<number> {
  const event = createEvent({
    ...{ type: 'dev.dandelion.predictions.made.v1', source: '/dandelion/functions/predict', id: 'notice' },
    data: { records },
  });
  const { headers, body } = encodeBinary(event);
  const response = await fetch(server.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
  await response.arrayBuffer();
  return response.status;
}
/** In the background, so that a slow machine takes its time. */
const stored = (documents: number) =>
  expect.poll(() => elasticsearch.stored.size, { timeout: 20_000 }).toBe(documents);
const keptRows = () => stores.db<{ id: string; madeAt: Date }[]>`
  select id, made_at as "madeAt" from predictions order by id`;

describe('monitor with Elasticsearch', () => {
  it('sends the records that PostgreSQL keeps, at its times', async () => {
    const ahead = new Date(Date.now() + 86_400_000).toISOString();
    expect(await deliver([record('r1'), record('r2', { time: ahead })])).toBe(204);
    await stored(2);
    const rows = await keptRows();
    expect(rows.map(({ id }) => id)).toEqual(['r1', 'r2']);
    const times = rows.map(({ id }) => JSON.parse(elasticsearch.stored.get(id) ?? '{}')['@timestamp']);
    expect(times).toEqual(rows.map(({ madeAt }) => madeAt.toISOString()));
  });

  it('sends a notice again that was delivered again: only PostgreSQL may have had it', async () => {
    expect(await deliver([record('r1'), record('r2')])).toBe(204);
    expect(await deliver([record('r1'), record('r2')])).toBe(204);
    await stored(2);
    await server.close();
    expect([...elasticsearch.stored.keys()].sort()).toEqual(['r1', 'r2']);
  });

  it('answers the broker though Elasticsearch takes nothing, and stops in spite of it', async () => {
    elasticsearch.delayMs = 3_600_000;
    expect(await deliver([record('r1')])).toBe(204);
    await server.close();
    expect(await keptRows()).toHaveLength(1);
    expect(elasticsearch.stored.size).toBe(0);
  });

  it('sends nothing that PostgreSQL did not take', async () => {
    await stores.db`alter table predictions rename to predictions_gone`;
    expect(await deliver([record('r1')])).toBeGreaterThanOrEqual(500);
    await server.close();
    expect(elasticsearch.stored.size).toBe(0);
  });
});
