import { DandelionError } from '../errors.ts';
import type { SliceFacts } from '../vision/slices.ts';
import { BYTEA_ARRAY, type Database } from './database.ts';
import { readDataset, type Split } from './datasets.ts';
import { packVector, unpackVector } from './feature-vectors.ts';

/** What the extractor said of one photo. Vectors have `dimension` numbers. */
export interface FeatureRow {
  sha256: string;
  vector: Float32Array;
  /** Of the photo's augmented view (see vision/augment.ts): a further sample to train on. */
  augmentedVector: Float32Array;
  /** Plain numbers about the photo (brightness, sharpness ...), the reference for drift. */
  statistics: Record<string, number>;
}

/** Features of one split as dense arrays; row `i` belongs to `sha256[i]`. */
export interface FeatureMatrix {
  sha256: string[];
  labels: string[];
  groups: string[];
  /** n x dimension, row-major. */
  features: Float32Array;
  /** n x dimension, row-major. */
  augmentedFeatures: Float32Array;
  dimension: number;
}

/** Which of these photos have no features of this extractor yet. */
export async function missingFeatures(
  db: Database,
  model: string,
  extractor: string,
  sha256: readonly string[],
): Promise<string[]> {
  const rows = await db<{ sha256: string }[]>`
    select sha256 from unnest(${[...sha256]}::text[]) as wanted (sha256)
    where not exists (
      select from features f where f.model = ${model} and f.extractor = ${extractor} and f.sha256 = wanted.sha256)
    order by sha256`;
  return rows.map((row) => row.sha256);
}

/**
 * Deletes stored features that are damaged, so that these photos count as missing and are embedded again.
 *
 * @returns whose they were
 */
export async function forgetDamagedFeatures(
  db: Database,
  model: string,
  { id, dimension }: { id: string; dimension: number },
  sha256: readonly string[],
): Promise<string[]> {
  const damaged: string[] = [];
  for (let start = 0; start < sha256.length; start += PAGE_ROWS) {
    const rows = await readVectors(db, { model, extractor: id }, sha256.slice(start, start + PAGE_ROWS));
    for (const row of rows) {
      const isDamaged = [row.vector, row.augmented].some(
        (bytes) => 'fault' in unpackVector(bytes, dimension),
      );
      if (isDamaged) damaged.push(row.sha256);
    }
  }
  if (damaged.length > 0) {
    await db`
      delete from features where model = ${model} and extractor = ${id} and sha256 = any(${damaged}::text[])`;
  }
  return damaged;
}

function readVectors(
  db: Database,
  { model, extractor }: { model: string; extractor: string },
  sha256: readonly string[],
) {
  return db<{ sha256: string; vector: Buffer; augmented: Buffer }[]>`
    select sha256, vector, augmented_vector as augmented from features
    where model = ${model} and extractor = ${extractor} and sha256 = any(${[...sha256]}::text[])`;
}

/** Statements of {@link storeFeatures} under way at once: one alone waits longer for its answer than it works. */
export const BATCHES_STORED_AT_ONCE = 4;

/**
 * Stores a batch, in one statement; a photo that is there already is left as it was. Vectors are kept as half floats
 * (binary16), which halves their bytes, unless one holds a number that they cannot.
 */
export async function storeFeatures(
  db: Database,
  model: string,
  extractor: string,
  rows: readonly FeatureRow[],
): Promise<void> {
  if (rows.length === 0) return;
  const vectors = (pick: (row: FeatureRow) => Float32Array) =>
    db.typed(
      rows.map((row) => packVector(pick(row))),
      BYTEA_ARRAY,
    );
  await db`
    insert into features (model, extractor, sha256, vector, augmented_vector, statistics)
    select ${model}, ${extractor}, photo.sha256, photo.vector, augmented, statistics::jsonb
    from unnest(
      ${rows.map(({ sha256 }) => sha256)}::text[],
      ${vectors(({ vector }) => vector)}, ${vectors(({ augmentedVector }) => augmentedVector)},
      ${rows.map(({ statistics }) => JSON.stringify(statistics))}::text[])
      as photo (sha256, vector, augmented, statistics)
    on conflict do nothing`;
}

/** Writes what the quality checks said of photos; an empty list of flags clears them. */
export async function recordQuality(
  db: Database,
  model: string,
  photos: readonly { sha256: string; flags: readonly string[] }[],
): Promise<void> {
  if (photos.length === 0) return;
  await db`
    update images set quality_flags = found.flags
    from (
      select sha256, array(select jsonb_array_elements_text(list::jsonb)) as flags
      from unnest(
        ${photos.map(({ sha256 }) => sha256)}::text[],
        ${photos.map(({ flags }) => JSON.stringify(flags))}::text[]) as photo (sha256, list)) as found
    where images.model = ${model} and images.sha256 = found.sha256
      and images.quality_flags is distinct from found.flags`;
}

/**
 * Reads the features of a dataset version, in the order of the photos' digests, so that training sees the same
 * rows in the same order every time.
 *
 * @throws DandelionError `object-missing` when a photo of the dataset has no features of this extractor, `bad-data` when
 *   they are damaged
 */
export async function readFeatures(
  db: Database,
  dataset: { model: string; version: string; split: Split },
  extractor: { id: string; dimension: number },
): Promise<FeatureMatrix> {
  const { dimension } = extractor;
  const images = await readDataset(db, dataset.model, dataset.version, dataset.split);
  const features = new Float32Array(images.length * dimension);
  const augmentedFeatures = new Float32Array(images.length * dimension);
  // Page by page: the rows of a page are garbage once they are in the matrices.
  for (let start = 0; start < images.length; start += PAGE_ROWS) {
    const page = images.slice(start, start + PAGE_ROWS).map(({ sha256 }) => sha256);
    const rows = await readVectors(db, { model: dataset.model, extractor: extractor.id }, page);
    const stored = new Map(rows.map((row) => [row.sha256, row]));
    for (const [index, sha256] of page.entries()) {
      const row = stored.get(sha256);
      if (row === undefined) {
        throw new DandelionError(
          'object-missing',
          `Photo ${sha256} of dataset ${dataset.version} has no ${extractor.id} features; run preprocess again.`,
        );
      }
      features.set(checked(row.vector, dimension, sha256), (start + index) * dimension);
      augmentedFeatures.set(checked(row.augmented, dimension, sha256), (start + index) * dimension);
    }
  }
  return {
    sha256: images.map(({ sha256 }) => sha256),
    labels: images.map(({ label }) => label),
    groups: images.map(({ group }) => group),
    features,
    augmentedFeatures,
    dimension,
  };
}

/** What the photos of an evaluation are told apart by, in the order of the digests; `{}` for one that is not known. */
export async function readSliceFacts(
  db: Database,
  { model, extractor }: { model: string; extractor: string },
  sha256: readonly string[],
): Promise<SliceFacts[]> {
  const rows = await db<{ sha256: string; brightness: number | null; shortSide: number; source: string }[]>`
    select i.sha256, (f.statistics ->> 'brightness')::float8 as brightness,
      least(i.width, i.height) as "shortSide", i.label_source as source
    from images i left join features f
      on f.model = i.model and f.sha256 = i.sha256 and f.extractor = ${extractor}
    where i.model = ${model} and i.sha256 = any(${[...sha256]}::text[])`;
  const known = new Map(
    rows.map(({ sha256: digest, brightness, ...facts }) => [
      digest,
      { ...facts, brightness: brightness ?? undefined },
    ]),
  );
  return sha256.map((digest) => known.get(digest) ?? {});
}

/**
 * Reads the image statistics of photos; one without any is left out.
 *
 * @returns by digest
 */
export async function readStatistics(
  db: Database,
  model: string,
  extractor: string,
  sha256: readonly string[],
): Promise<Map<string, Record<string, number>>> {
  const rows = await db<{ sha256: string; statistics: Record<string, number> }[]>`
    select sha256, statistics from features
    where model = ${model} and extractor = ${extractor} and sha256 = any(${[...sha256]}::text[])`;
  return new Map(rows.map((row) => [row.sha256, row.statistics]));
}

const PAGE_ROWS = 500;

function checked(bytes: Buffer, dimension: number, sha256: string): Float16Array | Float32Array {
  const unpacked = unpackVector(bytes, dimension);
  if ('vector' in unpacked) return unpacked.vector;
  throw new DandelionError(
    'bad-data',
    `The stored feature vector of photo ${sha256} ${unpacked.fault}; run preprocess again, which makes damaged ones anew.`,
  );
}
