import { DandelionError } from '../errors.ts';
import type { LinearHead } from './serving-graph.ts';

/**
 * Class probabilities of `n` photos.
 *
 * @param features row-major [n, dimension]
 * @returns row-major [n, classes]; rows sum to 1
 * @throws DandelionError `internal` when the features are not of the head's dimension
 */
export function applyHead(head: LinearHead, features: Float32Array, n: number): Float32Array {
  const classes = head.bias.length;
  const dimension = head.weights.length / classes;
  if (features.length !== n * dimension) {
    throw new DandelionError(
      'internal',
      `The head takes ${dimension} features a photo; it got ${features.length} for ${n} photos.`,
    );
  }
  const probabilities = new Float32Array(n * classes);
  const logits = new Float64Array(classes);
  for (let photo = 0; photo < n; photo += 1) {
    logits.set(head.bias);
    for (let feature = 0; feature < dimension; feature += 1) {
      const value = features[photo * dimension + feature] ?? 0;
      for (let c = 0; c < classes; c += 1) {
        logits[c] = (logits[c] ?? 0) + value * (head.weights[feature * classes + c] ?? 0);
      }
    }
    probabilities.set(softmax(logits), photo * classes);
  }
  return probabilities;
}

/** Exponentials that sum to 1; the largest logit is taken off first, so none overflows. */
export function softmax(logits: Float64Array): Float64Array {
  const highest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
