import type { Corruption } from '../../vision/corruptions.ts';
import { type Gain, type PairedGain, pairedGain, type Samples } from '../../vision/cross-validation.ts';

/** Shares of right answers on corrupted photos, and what the pipeline's head gains. */
interface Compared {
  pipeline: number;
  plainHead: number;
}

/** How the heads do on held-out photos that something befell. */
export interface CorruptedReport {
  /** Means over all corruptions. */
  all: Compared & { gain: PairedGain };
  each: ({ corruption: Corruption; gain: Gain } & Compared)[];
}

/** @param answers by corruption in order: the pipeline's by repeat, then the plain head's */
export function compareCorrupted(
  corruptions: readonly Corruption[],
  answers: readonly Float32Array[][],
  samples: Samples,
): CorruptedReport {
  const ofPipeline = answers.filter((_, index) => index % 2 === 0);
  const ofPlainHead = answers.filter((_, index) => index % 2 === 1);
  const compare = (first: readonly Float32Array[], second: readonly Float32Array[]) => ({
    pipeline: accuracyOf(first, samples),
    plainHead: accuracyOf(second, samples),
    gain: pairedGain(first, second, samples),
  });
  return {
    all: compare(ofPipeline.flat(), ofPlainHead.flat()),
    each: corruptions.map((corruption, index) => {
      const { gain, ...shares } = compare(ofPipeline[index] ?? [], ofPlainHead[index] ?? []);
      return { corruption, ...shares, gain: gain.accuracy };
    }),
  };
}

/** Mean over the repeats. */
function accuracyOf(answers: readonly Float32Array[], { labels, classes }: Samples): number {
  const width = classes.length;
  const right = answers.flatMap((probabilities) =>
    [...labels].map((label, photo) => {
      const own = probabilities.subarray(photo * width, (photo + 1) * width);
      return Number(own.indexOf(Math.max(...own)) === label);
    }),
  );
  return right.reduce((sum, one) => sum + one, 0) / right.length;
}
