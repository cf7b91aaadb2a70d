import type { DesignMatrix } from './design-matrix.ts';
import { type Minimum, minimise } from './lbfgs.ts';

/** What a fit works on: `rows` of the design matrix, of which those with weight 0 are left out. */
export interface LogisticProblem {
  matrix: DesignMatrix;
  /** Class of each row. */
  labels: Int32Array;
  classes: number;
  /** Weight of each row; 0 = not trained on. */
  rowWeights: Float64Array;
  /** Standardisation over the rows trained on, on top of the matrix's own. */
  mean: Float64Array;
  deviation: Float64Array;
}

/**
 * Prepares a fit on the rows that `use` marks with 1. Each class gets the same total weight, however many photos
 * it has; the features are standardised over these rows alone, so held-out rows leave no trace.
 */
export function logisticProblem(
  matrix: DesignMatrix,
  labels: Int32Array,
  classes: number,
  use: Uint8Array,
): LogisticProblem {
  const counts = new Float64Array(classes);
  for (const [row, label] of labels.entries()) {
    if (use[row] === 1) counts[label] = (counts[label] ?? 0) + 1;
  }
  const present = counts.filter((count) => count > 0).length;
  const rowWeights = Float64Array.from(labels, (label, row) =>
    use[row] === 1 ? 1 / (present * (counts[label] ?? 1)) : 0,
  );
  return { matrix, labels, classes, rowWeights, ...matrix.momentsOf(use) };
}

/**
 * The parameters in the matrix's own scale.
 *
 * @param point weights row-major [dimension, classes], then biases [classes], for standardised features
 */
export function unstandardise(
  point: Float64Array,
  { mean, deviation }: { mean: Float64Array; deviation: Float64Array },
): { weights: Float64Array; bias: Float64Array } {
  const dimension = mean.length;
  const classes = point.length / (dimension + 1);
  const weights = point.slice(0, dimension * classes);
  const bias = point.slice(dimension * classes);
  for (let feature = 0; feature < dimension; feature += 1) {
    for (let c = 0; c < classes; c += 1) {
      const i = feature * classes + c;
      const weight = (weights[i] ?? 0) / (deviation[feature] ?? 1);
      weights[i] = weight;
      bias[c] = (bias[c] ?? 0) - (mean[feature] ?? 0) * weight;
    }
  }
  return { weights, bias };
}

/** Logits of all rows, row-major [rows, classes], of a parameter vector (see {@link unstandardise}). */
export function logitsOf(problem: LogisticProblem, point: Float64Array): Float64Array {
  const { matrix, classes } = problem;
  const { weights, bias } = unstandardise(point, problem);
  const products = matrix.multiply(Float32Array.from(weights), classes);
  return Float64Array.from(products, (product, i) => product + (bias[i % classes] ?? 0));
}

/**
 * Cross-entropy of one row and its softmax, written over its logits.
 *
 * @returns -log of the probability of the right class
 */
function crossEntropyInPlace(logits: Float64Array, start: number, classes: number, label: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < classes; c += 1) highest = Math.max(highest, logits[start + c] ?? 0);
  let sum = 0;
  for (let c = 0; c < classes; c += 1) sum += Math.exp((logits[start + c] ?? 0) - highest);
  const normaliser = highest + Math.log(sum);
  const loss = normaliser - (logits[start + label] ?? 0);
  for (let c = 0; c < classes; c += 1) {
    logits[start + c] = Math.exp((logits[start + c] ?? 0) - normaliser);
  }
  return loss;
}

/**
 * Loss and gradient of L2-regularised multinomial logistic regression: the weighted mean of the cross-entropies
 * plus half of `regularisation` times the squared weights (biases are free).
 *
 * Both products with the matrix are done on tensors; the few numbers a row in between in double precision, so
 * that the line search is not led by rounding.
 */
function lossAndGradient(
  problem: LogisticProblem,
  point: Float64Array,
  regularisation: number,
): { loss: number; gradient: Float64Array } {
  const { matrix, labels, classes, rowWeights, mean, deviation } = problem;
  const { rows, dimension } = matrix;
  const residuals = logitsOf(problem, point);
  let loss = 0;
  const biasGradient = new Float64Array(classes);
  for (let row = 0; row < rows; row += 1) {
    const weight = rowWeights[row] ?? 0;
    const start = row * classes;
    if (weight === 0) {
      residuals.fill(0, start, start + classes);
      continue;
    }
    const label = labels[row] ?? 0;
    loss += weight * crossEntropyInPlace(residuals, start, classes, label);
    for (let c = 0; c < classes; c += 1) {
      const residual = weight * ((residuals[start + c] ?? 0) - (c === label ? 1 : 0));
      residuals[start + c] = residual;
      biasGradient[c] = (biasGradient[c] ?? 0) + residual;
    }
  }

  const products = matrix.multiplyTransposed(Float32Array.from(residuals), classes);
  const gradient = new Float64Array(point.length);
  for (let feature = 0; feature < dimension; feature += 1) {
    for (let c = 0; c < classes; c += 1) {
      const i = feature * classes + c;
      const weight = point[i] ?? 0;
      const centred = (products[i] ?? 0) - (mean[feature] ?? 0) * (biasGradient[c] ?? 0);
      gradient[i] = centred / (deviation[feature] ?? 1) + regularisation * weight;
      loss += 0.5 * regularisation * weight * weight;
    }
  }
  gradient.set(biasGradient, dimension * classes);
  return { loss, gradient };
}

/**
 * Fits the model from a starting point; zeros, or the solution of a stronger penalty.
 *
 * @returns weights row-major [dimension, classes], then biases [classes], for standardised features
 */
export function fitLogistic(
  problem: LogisticProblem,
  regularisation: number,
  start: Float64Array,
  beforeStep: (step: number, loss: number) => Promise<void>,
): Promise<Minimum> {
  return minimise((point) => lossAndGradient(problem, point, regularisation), start, { beforeStep });
}
