import { DandelionError } from '../errors.ts';
import type { MetricsSummary } from '../events.ts';
import { type Random, seededRandom } from './random.ts';
import { areaUnderCurve, evenWeights, type Ranking, rank, rocCurve, type Weights } from './ranking.ts';

/** Photos whose highest probability falls into one interval. */
export interface CalibrationBin {
  /** Upper end of the interval, inclusive. */
  upTo: number;
  photos: number;
  /** Mean of the highest probabilities. */
  confidence: number;
  accuracy: number;
}

/** Everything measured on one split. */
export interface ClassifierReport {
  summary: MetricsSummary;
  /** Photos by true class (row) and predicted class (column). */
  confusion: number[][];
  /** Mean of -log of the probability of the true class. */
  logLoss: number;
  /** 95 % interval of the ROC AUC: percentiles of 1000 stratified bootstrap samples. */
  rocAucInterval: [number, number];
  /** Class against all others: area, and the curve as [false positive rate, true positive rate]. */
  roc: Record<string, { auc: number; curve: [number, number][] }>;
  calibration: CalibrationBin[];
}

/** The usual number (Guo et al., 2017): figures of others can be compared. */
const CALIBRATION_BINS = 15;

const BOOTSTRAP_SAMPLES = 1000;

/** 97.5th percentile of the standard normal distribution. */
const Z_95 = 1.959963984540054;

/** Below this a probability counts as this, so that one sure mistake does not make the log-loss infinite. */
const SMALLEST_PROBABILITY = 1e-12;

/**
 * Measures a classifier's probabilities against the truth.
 *
 * `interval` is Wilson's: unlike the normal approximation it holds for few photos and for accuracies near 1
 * (Brown, Cai and DasGupta, 2001), and unlike a bootstrap it does not collapse when every answer is right.
 * `rocAuc` is binary for two classes, for more the mean of each class against the others; a class without
 * positives or negatives is left out, and 0.5 stands where no class has both.
 *
 * @param probabilities row-major [photos, classes]
 * @param labels index into `classes`, [photos]
 * @param options.seed draws the bootstrap samples of `rocAucInterval`
 * @throws DandelionError `no-images` without a photo, `internal` when the lengths do not fit
 */
export function evaluateClassifier(
  probabilities: Float32Array,
  labels: Int32Array,
  classes: readonly string[],
  options: { seed: number },
): ClassifierReport {
  const images = labels.length;
  if (images === 0) throw new DandelionError('no-images', 'There is no photo to measure the model on.');
  if (probabilities.length !== images * classes.length) {
    throw new DandelionError(
      'internal',
      `${images} photos of ${classes.length} classes need ${images * classes.length} probabilities, not ${probabilities.length}.`,
    );
  }
  const predictions = Array.from({ length: images }, (_, photo) => {
    const own = probabilities.subarray(photo * classes.length, (photo + 1) * classes.length);
    const confidence = Math.max(...own);
    const predicted = own.indexOf(confidence);
    return { predicted, confidence, right: predicted === labels[photo] };
  });
  const confusion = classes.map(() => classes.map(() => 0));
  for (const [photo, { predicted }] of predictions.entries()) {
    const row = confusion[labels[photo] ?? -1];
    if (row?.[predicted] !== undefined) row[predicted] += 1;
  }
  const correct = predictions.filter(({ right }) => right).length;
  const even = evenWeights(images);
  const rankings = classes.map((_, c) => rank(probabilities, labels, classes.length, c));
  const calibration = calibrationBins(predictions);
  const gap = calibration.reduce((sum, bin) => sum + bin.photos * Math.abs(bin.accuracy - bin.confidence), 0);
  return {
    summary: {
      images,
      accuracy: correct / images,
      interval: wilsonInterval(correct, images),
      rocAuc: macroAuc(rankings, even),
      ece: gap / images,
      perClass: Object.fromEntries(classes.map((name, c) => [name, classScores(confusion, c)])),
    },
    confusion,
    logLoss: logLoss(probabilities, labels, classes.length),
    rocAucInterval: bootstrapAuc(rankings, labels, seededRandom(options.seed)),
    roc: Object.fromEntries(
      rankings.map((ranking, c) => [
        classes[c] ?? '',
        { auc: areaUnderCurve(ranking, even) ?? 0.5, curve: rocCurve(ranking) },
      ]),
    ),
    calibration,
  };
}

/**
 * Wilson's 95 % interval of a share (Wilson, 1927).
 *
 * @returns lower and upper end, within 0 and 1; both of these where nothing was tried
 */
export function wilsonInterval(successes: number, trials: number): [number, number] {
  if (trials === 0) return [0, 1];
  const share = successes / trials;
  const denominator = 1 + Z_95 ** 2 / trials;
  const centre = share + Z_95 ** 2 / (2 * trials);
  const reach = Z_95 * Math.sqrt((share * (1 - share)) / trials + Z_95 ** 2 / (4 * trials ** 2));
  return [
    Math.max(0, Math.min(share, (centre - reach) / denominator)),
    Math.min(1, Math.max(share, (centre + reach) / denominator)),
  ];
}

function classScores(confusion: readonly number[][], c: number): MetricsSummary['perClass'][string] {
  const hits = confusion[c]?.[c] ?? 0;
  const support = (confusion[c] ?? []).reduce((a, b) => a + b, 0);
  const answered = confusion.reduce((sum, row) => sum + (row[c] ?? 0), 0);
  const precision = answered === 0 ? 0 : hits / answered;
  const recall = support === 0 ? 0 : hits / support;
  const f1 = hits === 0 ? 0 : (2 * precision * recall) / (precision + recall);
  return { precision, recall, f1, support };
}

function logLoss(probabilities: Float32Array, labels: Int32Array, classes: number): number {
  let total = 0;
  for (const [photo, label] of labels.entries()) {
    const probability = probabilities[photo * classes + label] ?? 0;
    total -= Math.log(Math.max(SMALLEST_PROBABILITY, Math.min(1, probability)));
  }
  return total / labels.length;
}

function calibrationBins(predictions: readonly { confidence: number; right: boolean }[]): CalibrationBin[] {
  const bins = Array.from({ length: CALIBRATION_BINS }, () => ({ photos: 0, confidence: 0, right: 0 }));
  for (const { confidence, right } of predictions) {
    const index = Math.min(CALIBRATION_BINS - 1, Math.max(0, Math.ceil(confidence * CALIBRATION_BINS) - 1));
    const bin = bins[index];
    if (bin === undefined) continue;
    bin.photos += 1;
    bin.confidence += confidence;
    bin.right += right ? 1 : 0;
  }
  return bins.map(({ photos, confidence, right }, index) => ({
    upTo: (index + 1) / CALIBRATION_BINS,
    photos,
    confidence: photos === 0 ? 0 : confidence / photos,
    accuracy: photos === 0 ? 0 : right / photos,
  }));
}

/**
 * The area under the ROC curve of a score: the share of pairs in which the positive scores higher, ties counted half.
 *
 * @returns 0.5 when there are no positives or no negatives
 */
export function rocAucOf(positives: Float32Array, negatives: Float32Array): number {
  const scores = new Float32Array(positives.length + negatives.length);
  scores.set(positives);
  scores.set(negatives, positives.length);
  const [positive, negative] = [0, 1];
  const labels = Int32Array.from(scores, (_, place) => (place < positives.length ? positive : negative));
  return areaUnderCurve(rank(scores, labels, 1, positive), evenWeights(scores.length)) ?? 0.5;
}

function macroAuc(rankings: readonly Ranking[], weights: Weights): number {
  // The curves of two classes mirror each other: one area stands for both.
  const used = rankings.length === 2 ? rankings.slice(1) : rankings;
  const areas = used.map((ranking) => areaUnderCurve(ranking, weights)).filter((area) => area !== undefined);
  return areas.length === 0 ? 0.5 : areas.reduce((a, b) => a + b, 0) / areas.length;
}

/** Percentile interval; each class keeps its number of photos in every sample (Efron and Tibshirani, 1993). */
function bootstrapAuc(rankings: readonly Ranking[], labels: Int32Array, random: Random): [number, number] {
  const byClass = rankings.map((_, c) => [...labels.keys()].filter((photo) => labels[photo] === c));
  const weights = new Uint16Array(labels.length);
  const sum = byClass.reduce((photos, own) => photos + own.length, 0);
  const areas = Float64Array.from({ length: BOOTSTRAP_SAMPLES }, () => {
    weights.fill(0);
    for (const photos of byClass) {
      for (let draw = 0; draw < photos.length; draw += 1) {
        const photo = photos[Math.floor(random() * photos.length)] ?? 0;
        weights[photo] = (weights[photo] ?? 0) + 1;
      }
    }
    return macroAuc(rankings, { of: weights, sum });
  }).sort();
  const percentile = (share: number) => areas[Math.round(share * (BOOTSTRAP_SAMPLES - 1))] ?? 0.5;
  const [low, high] = [percentile(0.025), percentile(0.975)];
  return low < high ? [low, high] : scoreInterval(low, byClass, labels.length);
}

/**
 * Where every pair is in order, so it is in every sample, and a bootstrap would say that no pair ever is not: the score
 * interval of the area then (Newcombe 2006, method 5); of more than two classes the mean of theirs.
 */
function scoreInterval(area: number, byClass: readonly number[][], photos: number): [number, number] {
  const sizes = byClass.map(({ length }) => length).filter((own) => own > 0 && own < photos);
  if (sizes.length === 0) return [0, 1];
  const lowest = (seen: number) =>
    sizes.reduce((sum, own) => sum + lowestArea(seen, own, photos - own) / sizes.length, 0);
  return [lowest(area), 1 - lowest(1 - area)];
}

/** The area at which what was seen is as unlikely as the end of a 95 % interval may be, by bisection. */
function lowestArea(seen: number, positives: number, negatives: number): number {
  const others = (positives + negatives) / 2 - 1;
  const variance = (area: number) =>
    ((area * (1 - area)) / (positives * negatives)) *
    (1 + others * ((1 - area) / (2 - area) + area / (1 + area)));
  let [low, high] = [0, seen];
  for (let halving = 0; halving < 50; halving += 1) {
    const middle = (low + high) / 2;
    if (seen - middle > Z_95 * Math.sqrt(variance(middle))) low = middle;
    else high = middle;
  }
  return low;
}
