import { createHash } from 'node:crypto';
import { DandelionError } from '../../shared/errors.ts';
import type { FeatureRow } from '../../shared/stores/features.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { type DecodedPhoto, decodePhoto } from '../../shared/vision/decode.ts';
import type { Engine } from '../../shared/vision/engine.ts';
import { mirrorPixels } from '../../shared/vision/mirror.ts';
import { assessPhoto, type QualityFlag } from '../../shared/vision/quality.ts';

/** A photo's features with what the quality checks said of it. */
export interface EmbeddedPhoto extends FeatureRow {
  flags: QualityFlag[];
}

/**
 * Embeds photos of the object store in batches. The next batch is read and decoded while the engine works on
 * this one, so neither waits for the other.
 */
export async function* embedPhotos(
  objects: ObjectStore,
  engine: Engine,
  sha256: readonly string[],
  batchSize: number,
  signal: AbortSignal,
): AsyncIterable<EmbeddedPhoto[]> {
  const batches = chunksOf(sha256, batchSize);
  let decoding = decodeBatch(objects, batches[0] ?? [], engine.inputSize);
  for (let index = 0; index < batches.length; index++) {
    signal.throwIfAborted();
    const photos = await decoding;
    decoding = decodeBatch(objects, batches[index + 1] ?? [], engine.inputSize);
    // Awaited in the next round; until then a failure must not count as unhandled.
    decoding.catch(() => {});
    yield embedBatch(engine, batches[index] ?? [], photos);
  }
}

async function embedBatch(
  engine: Engine,
  sha256: readonly string[],
  photos: readonly DecodedPhoto[],
): Promise<EmbeddedPhoto[]> {
  const size = engine.inputSize;
  const pixels = Buffer.concat(photos.map((photo) => photo.pixels));
  const both = Buffer.concat([pixels, mirrorPixels(pixels, size)]);
  const { features } = await engine.run(both, photos.length * 2);
  const dimension = engine.featureDimension;
  const vectorAt = (row: number) => features.slice(row * dimension, (row + 1) * dimension);
  return photos.map((photo, index) => {
    const { flags, statistics } = assessPhoto(photo);
    return {
      sha256: sha256[index] ?? '',
      vector: vectorAt(index),
      flippedVector: vectorAt(photos.length + index),
      statistics: { ...statistics },
      flags,
    };
  });
}

function decodeBatch(objects: ObjectStore, sha256: readonly string[], size: number): Promise<DecodedPhoto[]> {
  return Promise.all(
    sha256.map(async (digest) => {
      const { bytes } = await objects.get(`images/${digest}`);
      if (createHash('sha256').update(bytes).digest('hex') !== digest) {
        throw new DandelionError(
          'object-corrupt',
          `images/${digest} is not what was stored: run ingest again.`,
        );
      }
      return decodePhoto(bytes, { size });
    }),
  );
}

function chunksOf<Item>(items: readonly Item[], size: number): Item[][] {
  const chunks: Item[][] = [];
  for (let start = 0; start < items.length; start += size) chunks.push(items.slice(start, start + size));
  return chunks;
}
