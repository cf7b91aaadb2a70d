import { z } from 'zod';
import { forEachConcurrently } from '../../function/parallel.ts';
import { type Database, openDatabase } from '../../stores/database.ts';
import { assignSplits, listCandidates, storeDataset } from '../../stores/datasets.ts';
import { BATCHES_STORED_AT_ONCE, type FeatureRow, storeFeatures } from '../../stores/features.ts';
import { fillDatabase } from '../../stores/testing-filled.ts';
import { peakMegabytes } from './resident.ts';
import { withScratch } from './scratch.ts';
import type { Stage } from './stage.ts';
import { summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker } from './worker.ts';

const model = 'bench';
/** As EfficientNet-B0's. */
const extractor = { id: 'noise', dimension: 1280 };
/** Photos that preprocess stores in one statement, unless PREPROCESS_BATCH says otherwise. */
const BATCH_PHOTOS = 16;
/** Their numbers come round again, so that making them is not what is timed. */
const DISTINCT_VECTORS = 64;

const readAnswer = z.object({ photos: z.number(), readMs: z.number(), emptyMegabytes: z.number() });

/** What one round found. */
interface Round {
  insertMs: number;
  bytes: number;
  snapshotMs: number;
  readMs: number;
  readPhotos: number;
  readMegabytes: number;
}

/** The feature store at the size of `--database-images`, by the product's own functions. */
export async function measureDatabase(stage: Stage): Promise<Row[]> {
  const { databaseImages: images, runs } = stage.options;
  return withScratch(stage, async ({ env }) => {
    const url = env.DATABASE_URL ?? '';
    const db = await openDatabase(url);
    try {
      await fillDatabase(db, model, images);
      const rounds: Round[] = [];
      for (let round = 0; round < runs; round++) rounds.push(await measureRound(db, url, images));
      return rowsOf(rounds, images);
    } finally {
      await db.end({ timeout: 5 });
    }
  });
}

async function measureRound(db: Database, url: string, images: number): Promise<Round> {
  await db`truncate features, datasets, dataset_images`;
  await db`update images set split = null where split is not null`;
  await db.unsafe('vacuum analyze');
  const photos = await db<{ sha256: string }[]>`select sha256 from images where model = ${model}`;

  const insertMs = await timed(() =>
    forEachConcurrently(batchesOf(photos), BATCHES_STORED_AT_ONCE, (rows) =>
      storeFeatures(db, model, extractor.id, rows),
    ),
  );
  const [size] = await db<{ bytes: number }[]>`select pg_total_relation_size('features')::float8 as bytes`;
  let version = '';
  const snapshotMs = await timed(async () => {
    const { images } = assignSplits(model, await listCandidates(db, model));
    ({ version } = await storeDataset(db, { model, ingestion: model, seed: 1, images }));
  });
  const read = await readInProcess(url, version);
  return { insertMs, bytes: (size?.bytes ?? Number.NaN) / images, snapshotMs, ...read };
}

async function* batchesOf(photos: readonly { sha256: string }[]): AsyncGenerator<FeatureRow[]> {
  const vectors = Array.from({ length: DISTINCT_VECTORS }, () =>
    Float32Array.from({ length: extractor.dimension }, () => 2 * Math.random() - 1),
  );
  const vectorAt = (index: number) => vectors[index % DISTINCT_VECTORS] as Float32Array;
  const statistics = { brightness: 0.513, contrast: 0.214, sharpness: 0.072, saturation: 0.331 };
  for (let start = 0; start < photos.length; start += BATCH_PHOTOS) {
    yield photos.slice(start, start + BATCH_PHOTOS).map(({ sha256 }, at) => ({
      ...{ sha256, statistics },
      vector: vectorAt(start + at),
      augmentedVector: vectorAt(start + at + 1),
    }));
  }
}

/** In a process of its own, whose memory nothing else has grown. */
async function readInProcess(url: string, version: string) {
  const worker = startWorker('database-worker.ts');
  try {
    const dataset = { model, version, split: 'train' };
    const { photos, readMs, emptyMegabytes } = await worker.ask({ url, dataset, extractor }, readAnswer);
    const readMegabytes = (await peakMegabytes(worker.processId)) - emptyMegabytes;
    return { readMs, readPhotos: photos, readMegabytes };
  } finally {
    await worker.close();
  }
}

function rowsOf(rounds: readonly Round[], images: number): Row[] {
  const of = (pick: (round: Round) => number) => summarise(rounds.map(pick));
  const title = `database, ${images} photos`;
  return [
    row(
      `${title}: features inserted`,
      'photos/s',
      of(({ insertMs }) => (images / insertMs) * 1000),
      { atLeast: 5000 },
    ),
    row(
      `${title}: features on disk`,
      'bytes/photo',
      of(({ bytes }) => bytes),
    ),
    row(
      `${title}: dataset snapshot`,
      'ms',
      of(({ snapshotMs }) => snapshotMs),
    ),
    row(
      `${title}: train split read`,
      'photos/s',
      of(({ readPhotos, readMs }) => (readPhotos / readMs) * 1000),
    ),
    row(
      `${title}: train split read, memory at its peak`,
      'MB',
      of(({ readMegabytes }) => readMegabytes),
    ),
    row(
      `${title}: the same / its numbers alone`,
      'x',
      of(({ readMegabytes, readPhotos }) => (readMegabytes * 1e6) / numbersOf(readPhotos)),
    ),
  ];
}

/** Bytes of both matrices as 32-bit floats. */
function numbersOf(photos: number): number {
  return photos * extractor.dimension * 2 * Float32Array.BYTES_PER_ELEMENT;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}
