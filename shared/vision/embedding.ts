import type { DecodedPhoto } from './decode.ts';
import type { Engine } from './engine.ts';
import { mirrorPixels } from './mirror.ts';

/** Features of photos and of their mirror images, an array of the extractor's dimension a photo. */
export interface Embedding {
  vectors: Float32Array[];
  mirrored: Float32Array[];
}

/**
 * Runs decoded photos and their mirror images through the engine: what a head is trained on.
 *
 * @param photos decoded to the engine's input size
 */
export async function embedDecoded(
  engine: Engine,
  photos: readonly Pick<DecodedPhoto, 'pixels'>[],
): Promise<Embedding> {
  const pixels = Buffer.concat(photos.map((photo) => photo.pixels));
  const both = Buffer.concat([pixels, mirrorPixels(pixels, engine.inputSize)]);
  const { features } = await engine.run(both, photos.length * 2);
  const dimension = engine.featureDimension;
  const vectorAt = (row: number) => features.slice(row * dimension, (row + 1) * dimension);
  return {
    vectors: photos.map((_, index) => vectorAt(index)),
    mirrored: photos.map((_, index) => vectorAt(photos.length + index)),
  };
}
