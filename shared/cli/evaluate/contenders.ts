import { trainHead } from '../../vision/classifier.ts';
import type { Contender, Fold, Samples } from '../../vision/cross-validation.ts';
import { applyHead } from '../../vision/head.ts';
import type { EmbeddedFile } from './photos.ts';

/** The head as the train function makes it: on photos and their augmented views. */
export function trainedAsInPipeline(photos: readonly EmbeddedFile[], samples: Samples): Contender {
  return (fold) => {
    const augmented = rowsOf(photos, fold.training, ({ augmented }) => augmented);
    return answer(photos, samples, fold, augmented);
  };
}

/** The plainest head on the same features: photos alone. */
export function plainHead(photos: readonly EmbeddedFile[], samples: Samples): Contender {
  return (fold) => answer(photos, samples, fold, undefined);
}

async function answer(
  photos: readonly EmbeddedFile[],
  { labels, classes, groups }: Samples,
  { training, heldOut, seed }: Fold,
  augmentedFeatures: Float32Array | undefined,
): Promise<Float32Array> {
  const head = await trainHead({
    features: rowsOf(photos, training, ({ vector }) => vector),
    augmentedFeatures,
    labels: Int32Array.from(training, (photo) => labels[photo] ?? 0),
    groups: training.map((photo) => groups[photo] ?? ''),
    dimension: photos[0]?.vector.length ?? 0,
    classes,
    seed,
  });
  return applyHead(
    head,
    rowsOf(photos, heldOut, ({ vector }) => vector),
    heldOut.length,
  );
}

function rowsOf(
  photos: readonly EmbeddedFile[],
  rows: readonly number[],
  vectorOf: (photo: EmbeddedFile) => Float32Array,
): Float32Array {
  const dimension = photos[0]?.vector.length ?? 0;
  const matrix = new Float32Array(rows.length * dimension);
  for (const [row, index] of rows.entries()) {
    const photo = photos[index];
    if (photo !== undefined) matrix.set(vectorOf(photo), row * dimension);
  }
  return matrix;
}
