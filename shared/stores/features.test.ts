import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from './database.ts';
import { storeDataset } from './datasets.ts';
import {
  type FeatureRow,
  forgetDamagedFeatures,
  missingFeatures,
  readFeatures,
  recordQuality,
  storeFeatures,
} from './features.ts';
import { type TestDatabase, testDatabase } from './testing.ts';

const model = 'flowers';
const extractor = { id: 'noise', dimension: 3 };
let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase();
  db = database.db;
});
afterAll(() => database.drop());

const shaOf = (index: number) => index.toString(16).padStart(64, '0');
const rowOf = (index: number, numbers: number[]): FeatureRow => ({
  sha256: shaOf(index),
  vector: Float32Array.from(numbers),
  augmentedVector: Float32Array.from(numbers.toReversed()),
  statistics: { brightness: index / 7 },
});

async function snapshot(indices: readonly number[]): Promise<string> {
  const images = indices.map((index) => ({
    ...{ sha256: shaOf(index), label: 'dandelion', group: shaOf(index) },
    split: 'train' as const,
  }));
  return (await storeDataset(db, { model, ingestion: 'i', seed: 1, images })).version;
}

describe('features', () => {
  it('come back in the order of the digests over several pages, rounded to half floats', async () => {
    const rows = Array.from({ length: 1203 }, (_, index) => rowOf(index, [index / 3, -index, 0.5]));
    await storeFeatures(db, model, extractor.id, rows);
    const version = await snapshot(rows.map((_, index) => index));
    const read = await readFeatures(db, { model, version, split: 'train' }, extractor);
    expect(read.sha256).toEqual(rows.map(({ sha256 }) => sha256));
    expect(read.features).toEqual(
      Float32Array.from(rows.flatMap(({ vector }) => [...vector].map(Math.f16round))),
    );
    expect(read.augmentedFeatures.slice(-3)).toEqual(Float32Array.of(0.5, -1202, Math.f16round(1202 / 3)));
  });

  it('that no half float holds, and those of an older release, are floats to the bit', async () => {
    const rows = [rowOf(5000, [1e6, 1 / 3, -7e4])];
    await storeFeatures(db, model, extractor.id, rows);
    const version = await snapshot([5000]);
    const read = await readFeatures(db, { model, version, split: 'train' }, extractor);
    expect(read.features).toEqual(rows[0]?.vector);
  });

  it('that are there already stay as they were; the missing ones are named', async () => {
    await storeFeatures(db, model, extractor.id, [rowOf(1, [9, 9, 9])]);
    const version = await snapshot([1]);
    const read = await readFeatures(db, { model, version, split: 'train' }, extractor);
    expect(read.features[2]).toBe(0.5);
    expect(await missingFeatures(db, model, extractor.id, [shaOf(1), shaOf(9001)])).toEqual([shaOf(9001)]);
    const gap = await snapshot([1, 9001]);
    const reading = readFeatures(db, { model, version: gap, split: 'train' }, extractor);
    await expect(reading).rejects.toMatchObject({
      code: 'object-missing',
      message: expect.stringContaining(shaOf(9001)),
    });
    const other = { ...extractor, id: 'another-v1' };
    await expect(readFeatures(db, { model, version, split: 'train' }, other)).rejects.toMatchObject({
      code: 'object-missing',
      message: expect.stringContaining('has no another-v1 features'),
    });
    const longer = { ...extractor, dimension: 7 };
    await expect(readFeatures(db, { model, version, split: 'train' }, longer)).rejects.toMatchObject({
      code: 'bad-data',
      message: expect.stringContaining('where 7 numbers belong'),
    });
  });

  it.each([
    [Number.NaN, 6001],
    [Number.POSITIVE_INFINITY, 6002],
    [Number.NEGATIVE_INFINITY, 6003],
  ])(
    'that hold %d are refused with the name of the photo, and forgotten on request',
    async (number, index) => {
      // As half floats and, beyond what those hold, as floats.
      const rows = [
        rowOf(index, [1, 2, number]),
        rowOf(index + 1000, [1e6, 2, number]),
        rowOf(index + 2000, [3, 2, 1]),
      ];
      await storeFeatures(db, model, extractor.id, rows);
      for (const row of rows.slice(0, 2)) {
        const version = await snapshot([Number.parseInt(row.sha256, 16)]);
        await expect(readFeatures(db, { model, version, split: 'train' }, extractor)).rejects.toMatchObject({
          code: 'bad-data',
          message: expect.stringContaining(`${row.sha256} is ${number} at place 2`),
        });
      }
      const digests = rows.map(({ sha256 }) => sha256);
      expect((await forgetDamagedFeatures(db, model, extractor, digests)).toSorted()).toEqual(
        digests.slice(0, 2),
      );
      expect(await missingFeatures(db, model, extractor.id, digests)).toEqual(digests.slice(0, 2));
    },
  );
});

it('flags of many photos are set and cleared at once', async () => {
  const image = (index: number) => db`
    insert into images (model, sha256, source, label, size_bytes, width, height, format, perceptual_hash)
    values (${model}, ${shaOf(index)}, 's', 'l', 1, 1, 1, 'jpeg', '0')`;
  await Promise.all([image(1), image(2)]);
  const flags = () => db`select to_json(quality_flags) as flags from images order by sha256`;
  await recordQuality(db, model, [
    { sha256: shaOf(1), flags: ['dark', 'a "b", \\'] },
    { sha256: shaOf(2), flags: ['blank'] },
  ]);
  expect(await flags()).toEqual([{ flags: ['dark', 'a "b", \\'] }, { flags: ['blank'] }]);
  await recordQuality(db, model, [{ sha256: shaOf(2), flags: [] }]);
  expect(await flags()).toEqual([{ flags: ['dark', 'a "b", \\'] }, { flags: [] }]);
});
