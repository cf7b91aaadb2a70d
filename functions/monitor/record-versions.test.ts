import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { createEvent, type Event, predictionRecord } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { readDriftWindow } from '../../shared/stores/drift-checks.ts';
import { countPredictions } from '../../shared/stores/predictions.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { type BulkServer, startBulkServer } from '../../shared/stores/testing-search.ts';
import { normal, seededRandom } from '../../shared/vision/random.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import * as monitor from './handler.ts';

const version = 'v0000000001';
const random = seededRandom(11);
let stores: TestStores;
let elasticsearch: BulkServer;
let server: Awaited<ReturnType<typeof startFunction>>;

beforeAll(async () => {
  [stores, elasticsearch] = await Promise.all([testStores(), startBulkServer()]);
  const env = { ...stores.env, ELASTICSEARCH_URL: elasticsearch.url };
  server = await startFunction(monitor, { name: 'monitor', env });
});
afterAll(async () => {
  await server?.close();
  await elasticsearch?.close();
  await stores?.drop();
});

const sketchOf = () => Array.from({ length: SKETCH.length }, () => Math.fround(normal(random)));
const base64Of = (sketch: number[]) => Buffer.from(new Float32Array(sketch).buffer).toString('base64');

/** A record as each release writes it, the next one among them; with the sketch that a reader should find in it. */
function recordOf(release: 1 | 2 | 3 | 4) {
  const sketch = sketchOf();
  const common = {
    ...{ id: randomUUID(), time: new Date().toISOString(), model: { name: 'plants', version } },
    ...{ revision: `predict-0000${release}`, outcome: 'answered', code: null, label: 'grass' },
    ...{ scores: { dandelion: 0.25, grass: 0.75 }, latencyMs: 8, weight: 1, input: { brightness: random() } },
  };
  const sketchBytes = { id: SKETCH.id, float32: base64Of(sketch) };
  switch (release) {
    case 1:
      return { record: common, sketch: null };
    case 2:
      return { record: { ...common, schemaVersion: 2, sketch: { id: SKETCH.id, values: sketch } }, sketch };
    case 3:
      return { record: { ...common, schemaVersion: 3, sketchBytes }, sketch };
    case 4:
      return { record: { ...common, schemaVersion: 4, sketchBytes, weather: { sky: 'grey' } }, sketch };
  }
}

async function post(records: unknown[]): Promise<number> {
  const notice = createEvent({
    ...{
      type: 'dev.dandelion.predictions.made.v1',
      source: '/dandelion/functions/predict',
      id: randomUUID(),
    },
    data: { records: [] },
  });
  const { headers, body } = encodeBinary({ ...notice, data: { records } } as Event);
  const response = await fetch(server.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
  await response.arrayBuffer();
  return response.status;
}

it('records of the last releases and the next one come in one notice, many at once, and stand side by side', async () => {
  const releases = [1, 2, 3, 4] as const;
  const sent = Array.from({ length: 400 }, (_, place) => recordOf(releases[place % 4] ?? 1));
  const notices = Array.from({ length: 20 }, (_, place) => sent.slice(place * 20, place * 20 + 20));
  const statuses = await Promise.all(notices.map((each) => post(each.map(({ record }) => record))));
  expect(new Set(statuses)).toEqual(new Set([204]));
  const rows = await stores.db`
    select schema_version as version, count(*)::int, count(sketch)::int as numbers, count(sketch_bytes)::int as bytes
    from predictions group by schema_version order by schema_version`;
  expect(rows).toEqual([
    { version: 1, count: 100, numbers: 0, bytes: 0 },
    { version: 2, count: 100, numbers: 100, bytes: 0 },
    { version: 3, count: 100, numbers: 0, bytes: 100 },
    { version: 4, count: 100, numbers: 0, bytes: 100 },
  ]);
  // Each reader sees one kind of record.
  const { photos } = await readDriftWindow(stores.db, { model: 'plants', version }, 1000);
  const byBrightness = new Map(photos.map((photo) => [photo.statistics.brightness, photo]));
  for (const { record, sketch } of sent) {
    const photo = byBrightness.get(record.input.brightness);
    // Of single precision; PostgreSQL writes no more digits than that has.
    expect({ ...photo, sketch: photo?.sketch?.map(Math.fround) ?? null }).toEqual({
      ...{ statistics: record.input, label: 'grass', confidence: 0.75, sketch },
    });
  }
  const counts = await countPredictions(stores.db, { model: 'plants', since: new Date(0) });
  expect(counts.map(({ revision, answered }) => [revision, answered])).toEqual(
    releases.map((release) => [`predict-0000${release}`, 100]),
  );
  await expect.poll(() => elasticsearch.stored.size, { timeout: 20_000 }).toBe(400);
});

it('a sketch that leads to no features is left out, and its record kept', async () => {
  const { record } = recordOf(3);
  const bad = ['', '====', base64Of([1, 2]), base64Of(sketchOf().fill(Number.NaN, 0, 1))].map((float32) => ({
    ...{ ...record, id: randomUUID(), model: { name: 'birds', version } },
    ...{ input: { brightness: random() }, sketchBytes: { id: SKETCH.id, float32 } },
  }));
  // What is no base64 at all breaks the contract: the notice is refused for good.
  for (const broken of bad.slice(0, 2)) expect(await post([broken])).toBe(422);
  expect(await post(bad.slice(2))).toBe(204);
  const { photos } = await readDriftWindow(stores.db, { model: 'birds', version }, 10);
  expect(photos.map(({ sketch }) => sketch)).toEqual([null, null]);
});

it('the release before reads what this one writes, without what it does not know', async () => {
  const release2 = z.object({ records: z.array(predictionRecord.omit({ sketchBytes: true })) });
  const { record } = recordOf(3);
  const { sketchBytes: _new, ...known } = record as typeof record & { sketchBytes: unknown };
  expect(release2.parse({ records: [record] }).records).toEqual([known]);
});
