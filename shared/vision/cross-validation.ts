import { groupedFolds } from './folds.ts';
import { evaluateClassifier, wilsonInterval } from './metrics.ts';
import { type Random, seededRandom } from './random.ts';

/** What is cross-validated: photos by their class and near-duplicate group. */
export interface Samples {
  /** Index into `classes`, [photos]. */
  labels: Int32Array;
  classes: readonly string[];
  /** Near-duplicate group of each photo; a group is never divided. */
  groups: readonly string[];
}

/** One fold: photos to learn from and photos to answer, as indices. */
export interface Fold {
  training: number[];
  heldOut: number[];
  /** Of the repeat the fold belongs to. */
  seed: number;
}

/** Learns from a fold's training photos; @returns probabilities of the held-out ones, row-major [heldOut, classes] */
export type Contender = (fold: Fold) => Promise<Float32Array>;

export interface Repeats {
  folds: number;
  /** Repeats, each with folds of its own. */
  seeds: number;
}

/** All folds of a repeated stratified cross-validation by group, repeat by repeat. */
export function foldsOf(
  { labels, groups }: Omit<Samples, 'classes'>,
  { folds: wanted, seeds }: Repeats,
): Fold[] {
  const photos = [...labels.keys()];
  return Array.from({ length: seeds }, (_, seed) => {
    const { folds, count } = groupedFolds(labels, groups, wanted, seed);
    return Array.from({ length: count }, (_, fold) => ({
      training: photos.filter((photo) => folds[photo] !== fold),
      heldOut: photos.filter((photo) => folds[photo] === fold),
      seed,
    }));
  }).flat();
}

/**
 * Repeated stratified cross-validation by group; every contender meets the very same folds (the same objects), so that they
 * can be compared in pairs and may share what they learn.
 *
 * @returns by contender and repeat: held-out probabilities of all photos, row-major [photos, classes]
 * @throws what a contender throws
 */
export async function crossValidate(
  samples: Samples,
  contenders: readonly Contender[],
  repeats: Repeats,
  onFold: (done: number, total: number) => void = () => {},
): Promise<Float32Array[][]> {
  const width = samples.classes.length;
  const answers = contenders.map(() =>
    Array.from({ length: repeats.seeds }, () => new Float32Array(samples.labels.length * width)),
  );
  const folds = foldsOf(samples, repeats);
  for (const [done, fold] of folds.entries()) {
    for (const [index, contender] of contenders.entries()) {
      const probabilities = await contender(fold);
      for (const [row, photo] of fold.heldOut.entries()) {
        const own = probabilities.subarray(row * width, (row + 1) * width);
        answers[index]?.[fold.seed]?.set(own, photo * width);
      }
    }
    onFold(done + 1, folds.length);
  }
  return answers;
}

/** Means over the repeats of a cross-validation. */
export interface CrossValidated {
  accuracy: number;
  /** Wilson's 95 % interval, a near-duplicate group counted as one trial. */
  interval: [number, number];
  rocAuc: number;
  ece: number;
  logLoss: number;
  perClass: Record<string, { precision: number; recall: number; f1: number; photos: number }>;
  /** By true class (row) and answer (column), photos a repeat. */
  confusion: number[][];
  repeats: { accuracy: number; rocAuc: number; ece: number; logLoss: number }[];
}

/** Measures each repeat's held-out answers and takes the mean. */
export function summariseRepeats(
  answers: readonly Float32Array[],
  { labels, classes, groups }: Samples,
): CrossValidated {
  const reports = answers.map((probabilities, seed) =>
    evaluateClassifier(probabilities, labels, classes, { seed }),
  );
  const repeats = reports.map(({ summary, logLoss }) => {
    const { accuracy, rocAuc, ece } = summary;
    return { accuracy, rocAuc, ece, logLoss };
  });
  const accuracy = mean(repeats.map((repeat) => repeat.accuracy));
  const independent = new Set(groups).size;
  return {
    accuracy,
    interval: wilsonInterval(accuracy * independent, independent),
    rocAuc: mean(repeats.map(({ rocAuc }) => rocAuc)),
    ece: mean(repeats.map(({ ece }) => ece)),
    logLoss: mean(repeats.map(({ logLoss }) => logLoss)),
    perClass: Object.fromEntries(
      classes.map((name) => {
        const own = reports.flatMap(({ summary }) => summary.perClass[name] ?? []);
        const of = (key: 'precision' | 'recall' | 'f1') => mean(own.map((scores) => scores[key]));
        const [photos = 0] = own.map(({ support }) => support);
        return [name, { precision: of('precision'), recall: of('recall'), f1: of('f1'), photos }];
      }),
    ),
    confusion: classes.map((_, truth) =>
      classes.map((_, answer) => mean(reports.map(({ confusion }) => confusion[truth]?.[answer] ?? 0))),
    ),
    repeats,
  };
}

/** A difference of means and its 95 % interval. */
export interface Gain {
  mean: number;
  interval: [number, number];
}

export interface PairedGain {
  /** How much more often the first is right. */
  accuracy: Gain;
  /** How much smaller the first one's log-loss is: surer where right, less sure where wrong. */
  logLoss: Gain;
  /** Photos that the first answers right more often than the second, over the repeats, and the other way about. */
  won: number;
  lost: number;
}

const BOOTSTRAP_SAMPLES = 4000;

/** Below this a probability counts as this, so that one sure mistake does not outweigh everything. */
const SMALLEST_PROBABILITY = 1e-6;

/**
 * Compares two contenders of the same cross-validation photo by photo. The intervals are percentiles of a bootstrap
 * over near-duplicate groups of each photo's mean difference over the repeats (Efron and Tibshirani, 1993, chapter
 * 13): what the gain would be had other photos been taken. Where both are right on the same photos every sample has a gain of
 * nothing; then the share of groups that may differ all the same, by Wilson's interval, bounds it either way.
 *
 * @param first, second: held-out probabilities by repeat, as {@link crossValidate} gives them
 */
export function pairedGain(
  first: readonly Float32Array[],
  second: readonly Float32Array[],
  samples: Samples,
): PairedGain {
  const { labels, groups } = samples;
  const photos = [...labels.keys()];
  const right = differences(first, second, samples, (own, label) => Number(indexOfLargest(own) === label));
  const certainty = differences(first, second, samples, (own, label) =>
    Math.log(Math.max(SMALLEST_PROBABILITY, own[label] ?? 0)),
  );
  const members = [...Map.groupBy(photos, (photo) => groups[photo] ?? '').values()];
  const mayDiffer = wilsonInterval(0, members.length)[1];
  return {
    accuracy: right.every((difference) => difference === 0)
      ? { mean: 0, interval: [-mayDiffer, mayDiffer] }
      : bootstrapMean(right, members, seededRandom(1)),
    logLoss: bootstrapMean(certainty, members, seededRandom(1)),
    won: right.filter((difference) => difference > 0).length,
    lost: right.filter((difference) => difference < 0).length,
  };
}

/** Of each photo: the mean over the repeats of how much more the first one's answer is worth. */
function differences(
  first: readonly Float32Array[],
  second: readonly Float32Array[],
  { labels, classes }: Samples,
  worth: (probabilities: Float32Array, label: number) => number,
): Float64Array {
  const width = classes.length;
  return Float64Array.from(labels, (label, photo) => {
    const worthOf = (answers: Float32Array) =>
      worth(answers.subarray(photo * width, (photo + 1) * width), label);
    return mean(first.map(worthOf)) - mean(second.map(worthOf));
  });
}

function bootstrapMean(values: Float64Array, members: readonly number[][], random: Random): Gain {
  const sums = members.map((photos) => photos.reduce((sum, photo) => sum + (values[photo] ?? 0), 0));
  const means = Float64Array.from({ length: BOOTSTRAP_SAMPLES }, () => {
    let [sum, photos] = [0, 0];
    for (let draw = 0; draw < members.length; draw += 1) {
      const group = Math.floor(random() * members.length);
      sum += sums[group] ?? 0;
      photos += members[group]?.length ?? 0;
    }
    return sum / photos;
  }).sort();
  const percentile = (share: number) => means[Math.round(share * (BOOTSTRAP_SAMPLES - 1))] ?? 0;
  return { mean: mean([...values]), interval: [percentile(0.025), percentile(0.975)] };
}

function indexOfLargest(values: Float32Array): number {
  return values.indexOf(Math.max(...values));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
