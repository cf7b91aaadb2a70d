import { type TrainedHead, trainHead } from '../../vision/classifier.ts';
import type { Contender, Fold, Samples } from '../../vision/cross-validation.ts';
import { applyHead } from '../../vision/head.ts';
import type { EmbeddedFile } from './photos.ts';

/** Learns a head from a fold's training photos; from the same fold once, however many views it then answers. */
export type Learner = (fold: Fold) => Promise<TrainedHead>;

/** The head as the train function makes it: on photos and their augmented views. */
export function trainedAsInPipeline(photos: readonly EmbeddedFile[], samples: Samples): Learner {
  return learntOnce((fold) => {
    const augmented = rowsOf(photos, fold.training, ({ augmented }) => augmented);
    return learn(photos, samples, fold, augmented);
  });
}

/** The plainest head on the same features: photos alone. */
export function plainHead(photos: readonly EmbeddedFile[], samples: Samples): Learner {
  return learntOnce((fold) => learn(photos, samples, fold, undefined));
}

/** Answers the held-out photos by what `vectorOf` takes of each. */
export function answering(
  learner: Learner,
  photos: readonly EmbeddedFile[],
  vectorOf: (photo: EmbeddedFile) => Float32Array,
): Contender {
  return async (fold) => {
    const head = await learner(fold);
    return applyHead(head, rowsOf(photos, fold.heldOut, vectorOf), fold.heldOut.length);
  };
}

function learntOnce(learner: Learner): Learner {
  const heads = new WeakMap<Fold, Promise<TrainedHead>>();
  return (fold) => {
    const head = heads.get(fold) ?? learner(fold);
    heads.set(fold, head);
    return head;
  };
}

function learn(
  photos: readonly EmbeddedFile[],
  { labels, classes, groups }: Samples,
  { training, seed }: Fold,
  augmentedFeatures: Float32Array | undefined,
): Promise<TrainedHead> {
  return trainHead({
    features: rowsOf(photos, training, ({ vector }) => vector),
    augmentedFeatures,
    labels: Int32Array.from(training, (photo) => labels[photo] ?? 0),
    groups: training.map((photo) => groups[photo] ?? ''),
    dimension: photos[0]?.vector.length ?? 0,
    classes,
    seed,
  });
}

/** What `vectorOf` takes of the photos at `rows`, row-major [rows, dimension]. */
export function rowsOf(
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
