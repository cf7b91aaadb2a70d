import type { FeatureRow } from '../../shared/stores/features.ts';
import { readPhoto } from '../../shared/stores/images.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import { embedDecoded } from '../../shared/vision/embedding.ts';
import type { Engine } from '../../shared/vision/engine.ts';
import { assessPhoto, type QualityFlag } from '../../shared/vision/quality.ts';

/** A photo's features with what the quality checks said of it. */
export interface EmbeddedPhoto extends FeatureRow {
  flags: QualityFlag[];
}

/**
 * Embeds photos of the object store, each with an augmented view.
 *
 * @throws DandelionError `object-missing`, `object-corrupt`, or why a photo cannot be decoded
 */
export async function embedPhotos(
  objects: ObjectStore,
  engine: Engine,
  sha256: readonly string[],
): Promise<EmbeddedPhoto[]> {
  const size = engine.inputSize;
  const photos = await Promise.all(
    sha256.map(async (digest) => decodePhoto(await readPhoto(objects, digest), { size })),
  );
  const { vectors, augmented } = await embedDecoded(engine, photos);
  return photos.map((photo, index) => {
    const { flags, statistics } = assessPhoto(photo);
    return {
      sha256: sha256[index] ?? '',
      vector: vectors[index] ?? new Float32Array(),
      augmentedVector: augmented[index] ?? new Float32Array(),
      statistics: { ...statistics },
      flags,
    };
  });
}
