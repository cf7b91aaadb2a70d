import { type Random, shuffled } from './random.ts';
import { mannWhitney, type TwoSampleResult } from './two-sample.ts';

/** Share of the identity in the covariance: few photos tell little of how 32 numbers go together. */
const SHRINKAGE = 0.1;

/**
 * Classifier two-sample test: a linear discriminant learns on one half of both samples to tell them apart and is tested
 * on the other half. What it has not seen it cannot have learnt by heart, so the p-value is honest whatever it learnt.
 * The effect is the area under the ROC curve on that other half.
 *
 * Source: D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests" (ICLR 2017), with ranks in place of the
 * accuracy; the covariance is shrunk as by J. H. Friedman, "Regularized discriminant analysis" (1989).
 *
 * @param reference rows of equal length
 * @param random deals photos to the halves
 */
export function domainClassifier(
  reference: readonly ArrayLike<number>[],
  window: readonly ArrayLike<number>[],
  random: Random,
): TwoSampleResult {
  const [referenceToLearn, referenceToTest] = halves(reference, random);
  const [windowToLearn, windowToTest] = halves(window, random);
  const direction = discriminant(referenceToLearn, windowToLearn);
  if (direction === undefined) return { pValue: 1, effect: 0.5 };
  const score = (row: ArrayLike<number>) =>
    direction.reduce((sum, weight, index) => sum + weight * (row[index] ?? 0), 0);
  return mannWhitney(referenceToTest.map(score), windowToTest.map(score));
}

type Rows = readonly ArrayLike<number>[];

function halves(rows: Rows, random: Random): [Rows, Rows] {
  const order = shuffled(rows, random);
  const middle = Math.floor(order.length / 2);
  return [order.slice(0, middle), order.slice(middle)];
}

/** Fisher's direction from the first sample to the second; undefined where nothing varies. */
function discriminant(one: Rows, other: Rows): number[] | undefined {
  const size = one[0]?.length ?? 0;
  const [meanOne, meanOther] = [meanOf(one, size), meanOf(other, size)];
  const covariance = Array.from({ length: size }, () => new Float64Array(size));
  addScatter(covariance, one, meanOne);
  addScatter(covariance, other, meanOther);
  const scales = covariance.map((row, index) => Math.sqrt(row[index] ?? 0));
  if (scales.every((scale) => scale === 0)) return undefined;
  // A number that never varies would be divided by nothing; its difference counts as it is.
  const scaleOf = (index: number) => scales[index] || 1;
  const correlation = covariance.map((row, i) =>
    row.map((value, j) => {
      const own = value / (scaleOf(i) * scaleOf(j));
      return (1 - SHRINKAGE) * own + (i === j ? SHRINKAGE : 0);
    }),
  );
  const difference = meanOther.map((value, index) => (value - (meanOne[index] ?? 0)) / scaleOf(index));
  return solve(correlation, difference).map((weight, index) => weight / scaleOf(index));
}

function meanOf(rows: Rows, size: number): number[] {
  return Array.from(
    { length: size },
    (_, index) => rows.reduce((sum, row) => sum + (row[index] ?? 0), 0) / rows.length,
  );
}

/** Adds the products of the deviations from the mean, in place. */
function addScatter(scatter: readonly Float64Array[], rows: Rows, mean: readonly number[]): void {
  for (const row of rows) {
    for (const [i, target] of scatter.entries()) {
      const deviation = (row[i] ?? 0) - (mean[i] ?? 0);
      for (let j = 0; j < target.length; j += 1) {
        target[j] = (target[j] ?? 0) + deviation * ((row[j] ?? 0) - (mean[j] ?? 0));
      }
    }
  }
}

/** Solves a symmetric positive definite system by Cholesky's decomposition. */
function solve(matrix: readonly Float64Array[], right: readonly number[]): number[] {
  const lower = matrix.map((row) => new Float64Array(row.length));
  const at = (i: number, j: number) => lower[i]?.[j] ?? 0;
  const dot = (i: number, j: number, length: number) => {
    let sum = 0;
    for (let k = 0; k < length; k += 1) sum += at(i, k) * at(j, k);
    return sum;
  };
  for (const [i, row] of lower.entries()) {
    for (let j = 0; j < i; j += 1) row[j] = ((matrix[i]?.[j] ?? 0) - dot(i, j, j)) / at(j, j);
    row[i] = Math.sqrt(Math.max((matrix[i]?.[i] ?? 0) - dot(i, i, i), SHRINKAGE / 1e6));
  }
  const half = new Array<number>(right.length).fill(0);
  for (let i = 0; i < right.length; i += 1) {
    let sum = right[i] ?? 0;
    for (let k = 0; k < i; k += 1) sum -= at(i, k) * (half[k] ?? 0);
    half[i] = sum / at(i, i);
  }
  const solution = new Array<number>(right.length).fill(0);
  for (let i = right.length - 1; i >= 0; i -= 1) {
    let sum = half[i] ?? 0;
    for (let k = i + 1; k < right.length; k += 1) sum -= at(k, i) * (solution[k] ?? 0);
    solution[i] = sum / at(i, i);
  }
  return solution;
}
