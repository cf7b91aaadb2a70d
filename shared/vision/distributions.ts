/** Terms that no longer change a double. */
const NEGLIGIBLE = 1e-15;
const MOST_TERMS = 1000;

/** Lanczos' coefficients for g = 7 (P. Godfrey, 2001): 15 digits for positive arguments. */
const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

/** Natural logarithm of the gamma function of a positive number. */
function logGamma(x: number): number {
  const series = LANCZOS.reduce(
    (sum, coefficient, index) => sum + (index === 0 ? coefficient : coefficient / (x + index - 1)),
    0,
  );
  const base = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(base) - base + Math.log(series);
}

/**
 * Regularised upper incomplete gamma function: by its series below `shape + 1`, by its continued fraction (Lentz) above.
 *
 * Source: W. Press et al., Numerical Recipes (3rd edition, 2007), section 6.2.
 */
function upperGamma(shape: number, x: number): number {
  if (x <= 0) return 1;
  const scale = Math.exp(-x + shape * Math.log(x) - logGamma(shape));
  if (x < shape + 1) {
    let term = 1 / shape;
    let sum = term;
    for (let n = 1; n < MOST_TERMS && term > sum * NEGLIGIBLE; n += 1) {
      term *= x / (shape + n);
      sum += term;
    }
    return Math.max(0, 1 - sum * scale);
  }
  let b = x + 1 - shape;
  let c = Number.MAX_VALUE;
  let d = 1 / b;
  let fraction = d;
  for (let n = 1; n < MOST_TERMS; n += 1) {
    const a = -n * (n - shape);
    b += 2;
    d = 1 / (a * d + b);
    c = b + a / c;
    const change = c * d;
    fraction *= change;
    if (Math.abs(change - 1) < NEGLIGIBLE) break;
  }
  return fraction * scale;
}

/** Natural logarithm of the number of ways to choose `k` of `n`. */
function logChoose(n: number, k: number): number {
  return logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1);
}

/**
 * Probability that of `drawn` things, taken without looking out of `total` of which `marked` are marked, at most `value`
 * are marked (hypergeometric distribution).
 */
export function hypergeometricHead(
  value: number,
  { drawn, marked, total }: { drawn: number; marked: number; total: number },
): number {
  const all = logChoose(total, drawn);
  let sum = 0;
  for (let k = Math.max(0, drawn + marked - total); k <= value; k += 1) {
    sum += Math.exp(logChoose(marked, k) + logChoose(total - marked, drawn - k) - all);
  }
  return Math.min(1, sum);
}

/** Probability that a chi-squared number of so many degrees of freedom is at least `value`. */
export function chiSquaredTail(value: number, degrees: number): number {
  return upperGamma(degrees / 2, value / 2);
}

/** Probability that a standard normal number is at least `z`. */
export function normalTail(z: number): number {
  const beyond = upperGamma(0.5, (z * z) / 2) / 2;
  return z >= 0 ? beyond : 1 - beyond;
}

/** Probability that Kolmogorov's statistic, distance times root of the sample size, is at least `lambda`. */
export function kolmogorovTail(lambda: number): number {
  // Below this the tail is 1 to ten digits and the series slow.
  if (lambda < 0.27) return 1;
  let sum = 0;
  for (let n = 1; n <= 100; n += 1) {
    const term = Math.exp(-2 * (n * lambda) ** 2);
    sum += n % 2 === 1 ? term : -term;
    if (term < NEGLIGIBLE * sum) break;
  }
  return Math.min(1, 2 * sum);
}
