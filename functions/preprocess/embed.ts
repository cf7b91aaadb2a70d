import type { FeatureRow } from '../../shared/stores/features.ts';
import { readPhoto } from '../../shared/stores/images.ts';
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
 * Embeds photos of the object store, each with its mirror image.
 *
 * @throws DandelionError `object-missing`, `object-corrupt`, or why a photo cannot be decoded
 */
export async function embedPhotos(
  objects: ObjectStore,
  engine: Engine,
  sha256: readonly string[],
): Promise<EmbeddedPhoto[]> {
  const photos = await decodePhotos(objects, sha256, engine.inputSize);
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

function decodePhotos(
  objects: ObjectStore,
  sha256: readonly string[],
  size: number,
): Promise<DecodedPhoto[]> {
  return Promise.all(sha256.map(async (digest) => decodePhoto(await readPhoto(objects, digest), { size })));
}
