import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createEvent, type PredictionRecord } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { readDriftWindow } from '../../shared/stores/drift-checks.ts';
import {
  findFeedback,
  measureLiveAccuracy,
  saveFeedback,
  settleFeedback,
} from '../../shared/stores/feedback.ts';
import { countPredictions } from '../../shared/stores/predictions.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { type BulkServer, startBulkServer } from '../../shared/stores/testing-search.ts';
import * as monitor from './handler.ts';

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
const version = 'v0000000001';
const model = { name: 'plants', version };
/** What people see: the last fifteen minutes. */
const fifteenMinutesAgo = () => new Date(Date.now() - 900_000);
const inTenSeconds = () => Date.now() + 10_000;

let stores: TestStores;
let elasticsearch: BulkServer;

beforeAll(async () => {
  stores = await testStores();
});
beforeEach(async () => {
  elasticsearch = await startBulkServer();
  await stores.db`delete from predictions`;
  return () => elasticsearch.close();
});
afterAll(() => stores?.drop());

const record = (madeAt: number, id: string = randomUUID()): PredictionRecord => ({
  ...{ schemaVersion: 3, id, time: new Date(madeAt).toISOString(), model, revision: 'predict-1' },
  ...{ outcome: 'answered', code: null, label: 'grass', scores: { grass: 0.9, dandelion: 0.1 } },
  ...{ latencyMs: 8, weight: 1, input: { brightness: Math.random() } },
});

/** A notice as a broker brings it from a pod whose clock is wrong by so much; 4 s after the answer by any clock. */
function noticeFrom(skewMs: number, ids: string[], arrivedAt = Date.now()) {
  const sentAt = arrivedAt + skewMs;
  return {
    ...createEvent({
      ...{
        type: 'dev.dandelion.predictions.made.v1',
        source: '/dandelion/functions/predict',
        id: randomUUID(),
      },
      data: { records: ids.map((id) => record(sentAt - 4000, id)) },
    }),
    time: new Date(sentAt).toISOString(),
    knativearrivaltime: new Date(arrivedAt).toISOString(),
  };
}

/** Brings notices to a monitor of its own, which has purged and sent all it had when this returns. */
async function deliver(...notices: ReturnType<typeof noticeFrom>[]): Promise<void> {
  const env = { ...stores.env, ELASTICSEARCH_URL: elasticsearch.url };
  const server = await startFunction(monitor, { name: 'monitor', env });
  for (const notice of notices) {
    const { headers, body } = encodeBinary(notice);
    const response = await fetch(server.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
    expect(response.status).toBe(204);
  }
  await server.close();
}

const skews: [string, number][] = [
  ['right', 0],
  ['three hours ahead', 3 * HOUR_MS],
  ['three hours behind', -3 * HOUR_MS],
  ['twenty years behind, as without a battery', -20 * YEAR_MS],
  ['a year ahead', YEAR_MS],
];

describe.each(skews)('records of a pod whose clock is %s', (_name, skewMs) => {
  it('stand in every window of the present, are not deleted as old, and show in dashboards', async () => {
    const ids = Array.from({ length: 20 }, () => randomUUID());
    await deliver(noticeFrom(skewMs, ids));
    const canary = await countPredictions(stores.db, {
      model: 'plants',
      since: fifteenMinutesAgo(),
      version,
    });
    expect(canary).toMatchObject([{ answered: 20 }]);
    expect((await readDriftWindow(stores.db, { model: model.name, version }, 100)).photos).toHaveLength(20);
    const rows = await stores.db<
      { id: string; madeAt: Date }[]
    >`select id, made_at as "madeAt" from predictions`;
    for (const { madeAt } of rows) {
      expect(madeAt.getTime()).toBeGreaterThan(fifteenMinutesAgo().getTime());
      expect(madeAt.getTime()).toBeLessThan(inTenSeconds());
    }
    const shown = rows.map(({ id }) => JSON.parse(elasticsearch.stored.get(id) ?? '{}')['@timestamp']);
    expect(shown).toEqual(rows.map(({ madeAt }) => madeAt.toISOString()));
  });
});

describe('records of pods whose clocks disagree', () => {
  it('keep the order of their answers, as far as their notices tell it', async () => {
    const [early, late] = [randomUUID(), randomUUID()];
    const now = Date.now();
    await deliver(noticeFrom(-5 * HOUR_MS, [late], now), noticeFrom(7 * HOUR_MS, [early], now - 60_000));
    const rows = await stores.db<{ id: string }[]>`select id from predictions order by made_at`;
    expect(rows.map(({ id }) => id)).toEqual([early, late]);
  });

  it('have the time of their answers, not of a delivery that came days late', async () => {
    const aDayAgo = Date.now() - 24 * HOUR_MS;
    const id = randomUUID();
    await deliver(noticeFrom(2 * HOUR_MS, [id], aDayAgo));
    const [row] = await stores.db<
      { madeAt: Date }[]
    >`select made_at as "madeAt" from predictions where id = ${id}`;
    expect(row?.madeAt.getTime()).toBe(aDayAgo - 4000);
  });
});

describe('feedback that comes before the record of its answer', () => {
  it('is joined with it once it is there, whatever the clock of its pod', async () => {
    const prediction = randomUUID();
    // Its sender says that another version said something else.
    const saved = await saveFeedback(
      stores.db,
      {
        ...{ prediction, client: '', model: 'plants', version: 'v0000000009', predicted: 'dandelion' },
        ...{ label: 'grass', photo: null },
      },
      { ofAll: 100, ofClient: 100 },
    );
    expect((await findFeedback(stores.db, saved?.id ?? ''))?.logged).toBeNull();
    await deliver(noticeFrom(-3 * HOUR_MS, [prediction]));
    const feedback = await findFeedback(stores.db, saved?.id ?? '');
    expect(feedback?.logged).toMatchObject({ version, label: 'grass' });
    if (feedback === undefined) throw new Error('the feedback is gone');
    await settleFeedback(stores.db, feedback, { status: 'accepted', label: 'grass' });
    expect(await measureLiveAccuracy(stores.db, 'plants')).toMatchObject([
      { version, reviewed: 1, correct: 1 },
    ]);
  });
});
