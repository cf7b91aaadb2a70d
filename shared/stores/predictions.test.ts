import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type PredictionRecord, predictionRecord } from '../events.ts';
import { countPredictions, purgePredictions, savePredictions } from './predictions.ts';
import { type TestDatabase, testDatabase } from './testing.ts';

let database: TestDatabase;
let made = 0;

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(() => database.db`delete from predictions`);
afterAll(() => database?.drop());

const version = 'v0000000001';
const canary = 'v0000000002';

function record(fields: Partial<PredictionRecord> = {}): PredictionRecord {
  made += 1;
  return {
    id: `record-${made}`,
    time: new Date().toISOString(),
    model: { name: 'plants', version },
    revision: 'predict-1',
    outcome: 'answered',
    code: null,
    label: 'grass',
    scores: { dandelion: 0.2, grass: 0.8 },
    latencyMs: 10,
    weight: 1,
    input: { brightness: 0.5 },
    ...fields,
  };
}

const failure = { outcome: 'failed', code: 'model-broken', label: null, scores: {} } as const;
const anHourAgo = () => new Date(Date.now() - 3_600_000);

describe('the prediction log', () => {
  it('stores a record once, however often it is sent', async () => {
    const records = [record(), record({ clientHash: 'c0ffee', traceId: 'a'.repeat(32) })];
    expect((await savePredictions(database.db, records)).added).toBe(2);
    expect((await savePredictions(database.db, [...records, record()])).added).toBe(1);
    const [row] = await database.db`select * from predictions where client_hash is not null`;
    expect(row).toMatchObject({ label: 'grass', scores: { grass: 0.8 }, input: { brightness: 0.5 } });
  });

  it('keeps records of both versions side by side, and what a later one adds does no harm', async () => {
    const later = {
      ...record(),
      schemaVersion: 3,
      sketch: { id: 'of-the-future', values: [1] },
      mood: 'good',
    };
    const sketch = { id: 'count-sketch-32-v1', values: [0.25, -3] };
    const sent = [record(), record({ schemaVersion: 2, sketch }), predictionRecord.parse(later)];
    await savePredictions(database.db, sent);
    const rows = await database.db`
      select schema_version as "schemaVersion", sketch_id as id, to_json(sketch) as sketch from predictions order by schema_version`;
    expect(rows).toEqual([
      { schemaVersion: 1, id: null, sketch: null },
      { schemaVersion: 2, id: sketch.id, sketch: sketch.values },
      { schemaVersion: 3, id: 'of-the-future', sketch: [1] },
    ]);
  });

  it('counts by version and revision since a time, bad input apart from faults of ours', async () => {
    await savePredictions(database.db, [
      record({ latencyMs: 10 }),
      record({ latencyMs: 30 }),
      record({ outcome: 'refused', code: 'not-an-image', latencyMs: 900 }),
      record({ time: new Date(Date.now() - 7_200_000).toISOString() }),
      record({ model: { name: 'plants', version: canary }, revision: 'predict-2', ...failure }),
      record({ model: { name: 'plants', version: null }, revision: 'predict-3', ...failure }),
      record({ model: { name: 'birds', version } }),
    ]);
    expect(await countPredictions(database.db, { model: 'plants', since: anHourAgo() })).toEqual([
      { version, revision: 'predict-1', answered: 2, refused: 1, failed: 0, p50Ms: 20, p95Ms: 29 },
      {
        version: canary,
        revision: 'predict-2',
        answered: 0,
        refused: 0,
        failed: 1,
        p50Ms: null,
        p95Ms: null,
      },
      { version: null, revision: 'predict-3', answered: 0, refused: 0, failed: 1, p50Ms: null, p95Ms: null },
    ]);
    const one = await countPredictions(database.db, { model: 'plants', since: anHourAgo(), version: canary });
    expect(one.map((counts) => counts.version)).toEqual([canary]);
  });

  it('makes up for sampling', async () => {
    await savePredictions(database.db, [record({ weight: 10 }), record({ weight: 10 }), record(failure)]);
    const [counts] = await countPredictions(database.db, { model: 'plants', since: anHourAgo() });
    expect(counts).toMatchObject({ answered: 20, failed: 1 });
  });

  it('does not let a clock that is ahead keep a record in every window', async () => {
    const ahead = record({ time: new Date(Date.now() + 86_400_000).toISOString() });
    const first = await savePredictions(database.db, [ahead]);
    const [row] = await database.db`select made_at, made_at <= now() as past from predictions`;
    expect(row?.past).toBe(true);
    // Whoever keeps the record elsewhere keeps it under the same time, whenever it is delivered.
    const again = await savePredictions(database.db, [ahead]);
    expect([...first.records, ...again.records].map(({ time }) => time)).toEqual([
      row?.made_at.toISOString(),
      row?.made_at.toISOString(),
    ]);
  });

  it('forgets what is older than the retention', async () => {
    const old = record({ time: new Date(Date.now() - 10_000).toISOString() });
    await savePredictions(database.db, [old, record()]);
    expect(await purgePredictions(database.db, 5000)).toBe(1);
    expect(await database.db`select 1 from predictions`).toHaveLength(1);
  });
});
