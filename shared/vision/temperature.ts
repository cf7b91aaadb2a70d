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
 * @param certainty how sure each label is, by class; 1 where left out
 */
export function logLossAt(
  logits: Float64Array,
  labels: Int32Array,
  classes: number,
  temperature: number,
  certainty: readonly number[] = [],
): number {
  let total = 0;
  for (const [row, label] of labels.entries()) {
    const own = logits.subarray(row * classes, (row + 1) * classes);
    let highest = Number.NEGATIVE_INFINITY;
    for (const logit of own) highest = Math.max(highest, logit);
    const sure = certainty[label] ?? 1;
    const doubt = (1 - sure) / (classes - 1);
    let sum = 0;
    let expected = (sure - doubt) * ((own[label] ?? 0) - highest);
    for (const logit of own) {
      sum += Math.exp((logit - highest) / temperature);
      expected += doubt * (logit - highest);
    }
    total += Math.log(sum) - expected / temperature;
  }
  return total / Math.max(1, labels.length);
}

/**
 * How sure a label may make us, by class: n photos of a class that were all told right leave a doubt of 1 in n + 2
 * (Platt, Probabilistic outputs for support vector machines, 1999, section 2.2), shared by the other classes.
 */
function certaintyOf(labels: Int32Array, classes: number): number[] {
  const counts = new Array<number>(classes).fill(0);
  for (const label of labels) counts[label] = (counts[label] ?? 0) + 1;
  return counts.map((count) => (count + 1) / (count + 2));
}

/**
 * The temperature that makes probabilities fit held-out labels best (Guo et al., On calibration of modern neural
 * networks, 2017, section 4.2): golden-section search on its logarithm, where the cross-entropy has one minimum.
 * Labels count as nearly sure, not as sure: where every photo is told right, probabilities would else become 1.
 *
 * @param logits of photos that the model was not trained on, row-major [labels.length, classes]
 */
export function fitTemperature(logits: Float64Array, labels: Int32Array, classes: number): number {
  const certainty = certaintyOf(labels, classes);
  const loss = (logarithm: number) => logLossAt(logits, labels, classes, Math.exp(logarithm), certainty);
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
