/** Range of the search; a temperature at its end means the logits carry no order worth keeping. */
const LOWEST = 1 / 64;
const HIGHEST = 64;

/** Width of the last interval, relative: finer changes no probability by more than 1e-4. */
const TOLERANCE = 1e-4;

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * Mean cross-entropy of logits divided by a temperature.
 *
 * @param logits row-major [labels.length, classes]
 */
export function logLossAt(
  logits: Float64Array,
  labels: Int32Array,
  classes: number,
  temperature: number,
): number {
  let total = 0;
  for (const [row, label] of labels.entries()) {
    const own = logits.subarray(row * classes, (row + 1) * classes);
    let highest = Number.NEGATIVE_INFINITY;
    for (const logit of own) highest = Math.max(highest, logit);
    let sum = 0;
    for (const logit of own) sum += Math.exp((logit - highest) / temperature);
    total += Math.log(sum) - ((own[label] ?? 0) - highest) / temperature;
  }
  return total / Math.max(1, labels.length);
}

/**
 * The temperature that makes probabilities fit held-out labels best (Guo et al., On calibration of modern neural
 * networks, 2017, section 4.2): golden-section search on its logarithm, where the cross-entropy has one minimum.
 *
 * @param logits of photos that the model was not trained on, row-major [labels.length, classes]
 */
export function fitTemperature(logits: Float64Array, labels: Int32Array, classes: number): number {
  const loss = (logarithm: number) => logLossAt(logits, labels, classes, Math.exp(logarithm));
  let low = Math.log(LOWEST);
  let high = Math.log(HIGHEST);
  let left = high - GOLDEN * (high - low);
  let right = low + GOLDEN * (high - low);
  let [leftLoss, rightLoss] = [loss(left), loss(right)];
  while (high - low > TOLERANCE) {
    if (leftLoss <= rightLoss) {
      high = right;
      [right, rightLoss] = [left, leftLoss];
      left = high - GOLDEN * (high - low);
      leftLoss = loss(left);
    } else {
      low = left;
      [left, leftLoss] = [right, rightLoss];
      right = low + GOLDEN * (high - low);
      rightLoss = loss(right);
    }
  }
  return Math.exp((low + high) / 2);
}
