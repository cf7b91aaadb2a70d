import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createEvent, type EventData } from '../../shared/events.ts';
import { invoke } from '../../shared/function/testing.ts';
import { readDataset } from '../../shared/stores/datasets.ts';
import { readFeatures } from '../../shared/stores/features.ts';
import { listRejections } from '../../shared/stores/images.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnPhotos, storePhoto } from '../../shared/stores/testing-models.ts';
import { backboneGraph } from '../../shared/vision/backbone.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from '../../shared/vision/random-backbone.ts';
import * as preprocess from './handler.ts';

type Stored = EventData<'dev.dandelion.features.stored.v1'>;

let stores: TestStores;
let env: Record<string, string>;

beforeAll(async () => {
  stores = await testStores();
  // A backbone of random weights: the whole path of a real one, without fetching anything.
  const graph = join(stores.directory, 'backbone.onnx');
  await writeFile(
    graph,
    backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 7), { architecture: SMALL_ARCHITECTURE }),
  );
  env = { ...stores.env, BACKBONE_URI: graph };
});
afterAll(() => stores.drop());

let eventNumber = 0;
function run(data: EventData<'dev.dandelion.images.ingested.v1'>, more: Record<string, string> = {}) {
  eventNumber += 1;
  const type = 'dev.dandelion.images.ingested.v1';
  const event = createEvent({ type, source: '/test', id: String(eventNumber), data });
  return invoke(preprocess, { name: 'preprocess', event, env: { ...env, ...more } });
}

/** The data of a run that must succeed. */
async function storedBy(data: EventData<'dev.dandelion.images.ingested.v1'>): Promise<Stored> {
  const { event, problem } = await run(data);
  if (event === undefined) throw new Error(`preprocess failed: ${JSON.stringify(problem)}`);
  return event.data as Stored;
}

describe('preprocess', () => {
  let ingested: EventData<'dev.dandelion.images.ingested.v1'>;

  beforeEach(async () => {
    const classes = { dandelion: 14, grass: 14 };
    ingested = await storeDrawnPhotos(stores, { model: 'plants', ingestion: 'first', classes });
  });

  it('stores features of every photo and its augmented view, and a dataset version with splits', async () => {
    const { event } = await run(ingested);
    const { dataset, extractor } = await storedBy(ingested);
    expect(event).toMatchObject({ type: 'dev.dandelion.features.stored.v1', subject: dataset.version });
    expect(event).toMatchObject({ executionclass: 'short' });
    const again = await run(ingested, { LONG_TRAINING_PHOTOS: '28' });
    expect(again.event).toMatchObject({ executionclass: 'long' });
    expect(dataset).toMatchObject({ images: 28, classes: { dandelion: 14, grass: 14 } });
    const { train, validation, test } = dataset.splits;
    expect(train + validation + test).toBe(28);

    const split = { model: 'plants', version: dataset.version, split: 'train' as const };
    const matrix = await readFeatures(stores.db, split, extractor);
    expect(matrix.features).toHaveLength(train * extractor.dimension);
    expect(matrix.features.every(Number.isFinite)).toBe(true);
    expect(matrix.augmentedFeatures).not.toEqual(matrix.features);
  });

  it('makes stored features anew that are damaged, and those alone', async () => {
    const { dataset, extractor } = await storedBy(ingested);
    const features = () =>
      stores.db<{ sha256: string; vector: Buffer; augmented_vector: Buffer; created_at: Date }[]>`
        select * from features order by sha256`;
    const sound = await features();
    const [first, second, third] = sound.map(({ sha256 }) => sha256);
    // NaN and infinity as half floats, and a vector that was cut off.
    await stores.db`
      update features set vector = overlay(vector placing '\\x007e'::bytea from 9 for 2) where sha256 = ${first ?? ''}`;
    await stores.db`
      update features set augmented_vector = overlay(augmented_vector placing '\\x007c'::bytea from 1 for 2)
      where sha256 = ${second ?? ''}`;
    await stores.db`update features set vector = substring(vector from 1 for 10) where sha256 = ${third ?? ''}`;
    const split = { model: 'plants', version: dataset.version };
    const readAll = () =>
      Promise.all(
        (['train', 'validation', 'test'] as const).map((name) =>
          readFeatures(stores.db, { ...split, split: name }, extractor),
        ),
      );
    await expect(readAll()).rejects.toMatchObject({ code: 'bad-data' });

    expect((await storedBy(ingested)).dataset.version).toBe(dataset.version);
    const mended = await features();
    expect(mended.map(({ vector }) => vector)).toEqual(sound.map(({ vector }) => vector));
    expect(mended.map((row) => row.augmented_vector)).toEqual(sound.map((row) => row.augmented_vector));
    expect(mended.slice(3)).toEqual(sound.slice(3));
  });

  it('gives the same dataset version again, and embeds nothing twice', async () => {
    const before = await storedBy(ingested);
    const [stamp] = await stores.db`select max(created_at) as latest, count(*) from features`;
    const after = await storedBy(ingested);
    expect(after.dataset).toEqual(before.dataset);
    expect((await stores.db`select max(created_at) as latest, count(*) from features`)[0]).toEqual(stamp);
  });

  it('makes a new version when photos join, and moves none of the old ones to another split', async () => {
    const before = await storedBy(ingested);
    const classes = { dandelion: 6, grass: 6 };
    const more = await storeDrawnPhotos(stores, {
      model: 'plants',
      ingestion: 'first',
      classes,
      firstSeed: 500,
    });
    const after = await storedBy(more);
    expect(after.dataset.images).toBe(40);
    expect(after.dataset.version).not.toBe(before.dataset.version);
    const splitOf = new Map(
      (await readDataset(stores.db, 'plants', after.dataset.version)).map(({ sha256, split }) => [
        sha256,
        split,
      ]),
    );
    for (const { sha256, split } of await readDataset(stores.db, 'plants', before.dataset.version)) {
      expect(splitOf.get(sha256)).toBe(split);
    }
  });

  it('sets a photo of one flat colour aside and lists it', async () => {
    const bytes = await sharp({ create: { width: 300, height: 200, channels: 3, background: '#808080' } })
      .jpeg()
      .toBuffer();
    const blank = { model: 'plants', ingestion: 'first', label: 'grass', source: 'grass/blank.jpg', bytes };
    const sha256 = await storePhoto(stores, blank);
    const { dataset, rejectedCount } = await storedBy(ingested);
    expect(rejectedCount).toBe(1);
    const images = await readDataset(stores.db, 'plants', dataset.version);
    expect(images.map((image) => image.sha256)).not.toContain(sha256);
    expect(await listRejections(stores.db, 'first')).toMatchObject([
      { source: 'grass/blank.jpg', code: 'blank-image' },
    ]);
  });

  it('finds an object whose bytes changed, and stores nothing of it', async () => {
    const classes = { dandelion: 12, grass: 12 };
    const photos = { model: 'damaged', ingestion: 'damaged', classes, firstSeed: 900 };
    const fresh = await storeDrawnPhotos(stores, photos);
    const [row] = await stores.db`select sha256 from images where model = 'damaged' limit 1`;
    await stores.objects.put(`images/${row?.sha256}`, Buffer.from('something else'));
    const { problem } = await run(fresh);
    expect(problem).toMatchObject({ code: 'object-corrupt', status: 503 });
    expect(await stores.db`select 1 from datasets where model = 'damaged'`).toHaveLength(0);
  });

  it('says which class has too few photos', async () => {
    const classes = { dandelion: 12, grass: 4 };
    const few = await storeDrawnPhotos(stores, { model: 'few', ingestion: 'few', classes });
    const { problem } = await run(few);
    expect(problem).toMatchObject({ code: 'too-few-images', status: 422 });
    expect(problem?.detail).toContain('grass (4)');
  });
});
