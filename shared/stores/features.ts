import { DandelionError } from '../errors.ts';
import type { Database } from './database.ts';
import type { Split } from './datasets.ts';

/** What the extractor said of one photo. Vectors have `dimension` numbers. */
export interface FeatureRow {
  sha256: string;
  vector: Float32Array;
  /** Of the photo's mirror image: augmentation for training. */
  flippedVector: Float32Array;
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
  flippedFeatures: Float32Array;
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

/** Stores a batch; a photo that is there already is left as it was. */
export async function storeFeatures(
  db: Database,
  model: string,
  extractor: string,
  rows: readonly FeatureRow[],
): Promise<void> {
  if (rows.length === 0) return;
  const values = rows.map((row) => ({
    model,
    sha256: row.sha256,
    extractor,
    vector: bytesOf(row.vector),
    flipped_vector: bytesOf(row.flippedVector),
    statistics: db.json(row.statistics),
  }));
  await db`insert into features ${db(values)} on conflict do nothing`;
}

/** Writes what the quality checks said of photos; an empty list of flags clears them. */
export async function recordQuality(
  db: Database,
  model: string,
  photos: readonly { sha256: string; flags: readonly string[] }[],
): Promise<void> {
  for (const { sha256, flags } of photos) {
    await db`
      update images set quality_flags = ${[...flags]}
      where model = ${model} and sha256 = ${sha256} and quality_flags is distinct from ${[...flags]}::text[]`;
  }
}

/**
 * Reads the features of a dataset version, in the order of the photos' digests, so that training sees the same
 * rows in the same order every time.
 *
 * @throws DandelionError `object-missing` when a photo of the dataset has no features of this extractor
 */
export async function readFeatures(
  db: Database,
  dataset: { model: string; version: string; split: Split },
  extractor: { id: string; dimension: number },
): Promise<FeatureMatrix> {
  const rows = await db<
    { sha256: string; label: string; group: string; vector: Buffer | null; flipped: Buffer | null }[]
  >`
    select d.sha256, d.label, d.near_duplicate_group as "group", f.vector, f.flipped_vector as flipped
    from dataset_images d
    left join features f on f.model = d.model and f.sha256 = d.sha256 and f.extractor = ${extractor.id}
    where d.model = ${dataset.model} and d.version = ${dataset.version} and d.split = ${dataset.split}
    order by d.sha256`;
  const { dimension } = extractor;
  const features = new Float32Array(rows.length * dimension);
  const flippedFeatures = new Float32Array(rows.length * dimension);
  for (const [index, row] of rows.entries()) {
    if (row.vector === null || row.flipped === null) {
      throw new DandelionError(
        'object-missing',
        `Photo ${row.sha256} of dataset ${dataset.version} has no ${extractor.id} features; run preprocess again.`,
      );
    }
    features.set(floatsOf(row.vector, dimension), index * dimension);
    flippedFeatures.set(floatsOf(row.flipped, dimension), index * dimension);
  }
  return {
    sha256: rows.map((row) => row.sha256),
    labels: rows.map((row) => row.label),
    groups: rows.map((row) => row.group),
    features,
    flippedFeatures,
    dimension,
  };
}

function bytesOf(vector: Float32Array): Buffer {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
}

/** Copies: a Float32Array must start on a multiple of 4, which a driver's buffer does not promise. */
function floatsOf(bytes: Buffer, dimension: number): Float32Array {
  if (bytes.byteLength !== dimension * 4) {
    throw new DandelionError(
      'object-corrupt',
      `A feature vector has ${bytes.byteLength} bytes where ${dimension * 4} belong; run preprocess again.`,
    );
  }
  return new Float32Array(Uint8Array.from(bytes).buffer);
}
