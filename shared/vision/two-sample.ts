import { chiSquaredTail, hypergeometricHead, kolmogorovTail, normalTail } from './distributions.ts';

/** What a test of two samples says: how unlikely such a difference is by chance, and how large it is. */
export interface TwoSampleResult {
  /** Of the hypothesis that both come from one distribution. */
  pValue: number;
  /** 0: alike. What 1 means, the test says. */
  effect: number;
}

/**
 * The test of Kolmogorov and Smirnov. Its effect is the largest difference of the two distribution functions, 0 to 1.
 * Ties make it cautious.
 *
 * The p-value is asymptotic with the correction for small samples of M. A. Stephens, "Use of the Kolmogorov-Smirnov,
 * Cramer-von Mises and related statistics without extensive tables" (1970), as in Numerical Recipes, section 14.3.
 */
export function kolmogorovSmirnov(one: ArrayLike<number>, other: ArrayLike<number>): TwoSampleResult {
  const a = Float64Array.from(one).sort();
  const b = Float64Array.from(other).sort();
  if (a.length === 0 || b.length === 0) return { pValue: 1, effect: 0 };
  let [i, j, distance] = [0, 0, 0];
  while (i < a.length && j < b.length) {
    const value = Math.min(a[i] ?? 0, b[j] ?? 0);
    while (i < a.length && a[i] === value) i += 1;
    while (j < b.length && b[j] === value) j += 1;
    distance = Math.max(distance, Math.abs(i / a.length - j / b.length));
  }
  const root = Math.sqrt((a.length * b.length) / (a.length + b.length));
  return { pValue: kolmogorovTail((root + 0.12 + 0.11 / root) * distance), effect: distance };
}

/** How many of some answers were right. */
export interface AnswerCount {
  right: number;
  total: number;
}

/**
 * Fisher's exact test, one-sided: whether answers are right less often than they were. Its effect is by how much the share
 * of right answers fell, negative where it rose.
 *
 * Source: R. A. Fisher, "On the interpretation of chi-squared from contingency tables, and the calculation of P" (1922).
 */
export function rightLessOften(before: AnswerCount, now: AnswerCount): TwoSampleResult {
  if (before.total === 0 || now.total === 0) return { pValue: 1, effect: 0 };
  const pValue = hypergeometricHead(now.right, {
    drawn: now.total,
    marked: before.right + now.right,
    total: before.total + now.total,
  });
  return { pValue, effect: before.right / before.total - now.right / now.total };
}

const PSI_BINS = 10;

/**
 * Population stability index over ten bins of equal share of the reference: below 0.1 alike, above 0.25 another
 * population (N. Siddiqi, Credit Risk Scorecards, 2006). Half a photo is added to each bin, so that an empty one does
 * not make it infinite. By chance alone it is about 9 (1/n + 1/m) (B. Yurdakul, 2018).
 */
export function populationStabilityIndex(reference: ArrayLike<number>, window: ArrayLike<number>): number {
  const sorted = Float64Array.from(reference).sort();
  const quantiles = Array.from(
    { length: PSI_BINS - 1 },
    (_, bin) => sorted[Math.floor(((bin + 1) * sorted.length) / PSI_BINS)] ?? 0,
  );
  const edges = [...new Set(quantiles)];
  const shares = (values: ArrayLike<number>) => {
    const counts = new Array<number>(edges.length + 1).fill(0.5);
    for (const value of Array.from(values)) {
      const bin = edges.filter((edge) => value >= edge).length;
      counts[bin] = (counts[bin] ?? 0) + 1;
    }
    const total = counts.reduce((sum, count) => sum + count, 0);
    return counts.map((count) => count / total);
  };
  const [expected, actual] = [shares(reference), shares(window)];
  return expected.reduce((sum, share, bin) => {
    const now = actual[bin] ?? share;
    return sum + (now - share) * Math.log(now / share);
  }, 0);
}

/** Cells below this make the approximation by chi-squared untrustworthy (W. G. Cochran, 1954). */
const LEAST_EXPECTED = 5;

/**
 * Pearson's chi-squared test that two samples have one mix of categories. Categories too rare for it are counted as one.
 * Its effect is the total variation distance: the share of photos that would have to change category.
 */
export function sameMix(one: readonly string[], other: readonly string[]): TwoSampleResult {
  if (one.length === 0 || other.length === 0) return { pValue: 1, effect: 0 };
  const total = one.length + other.length;
  const counts = new Map<string, [number, number]>();
  const count = (labels: readonly string[], column: 0 | 1) => {
    for (const label of labels) {
      const row = counts.get(label) ?? [0, 0];
      row[column] += 1;
      counts.set(label, row);
    }
  };
  count(one, 0);
  count(other, 1);
  const rows = [...counts.values()];
  const smaller = Math.min(one.length, other.length);
  const isRare = ([a, b]: [number, number]) => ((a + b) * smaller) / total < LEAST_EXPECTED;
  const rare = rows.filter(isRare);
  const cells = rows.filter((row) => !isRare(row));
  if (rare.length > 0) cells.push([sumOf(rare.map(([a]) => a)), sumOf(rare.map(([, b]) => b))]);
  const statistic = sumOf(
    cells.map(([a, b]) => {
      const expected = ((a + b) * one.length) / total;
      const expectedOther = ((a + b) * other.length) / total;
      return (a - expected) ** 2 / expected + (b - expectedOther) ** 2 / expectedOther;
    }),
  );
  const effect = sumOf(rows.map(([a, b]) => Math.abs(a / one.length - b / other.length))) / 2;
  return { pValue: cells.length < 2 ? 1 : chiSquaredTail(statistic, cells.length - 1), effect };
}

/**
 * The test of Mann and Whitney, one-sided: that scores of the second sample are not above those of the first. Its effect
 * is the area under the ROC curve, 0.5 when the samples cannot be told apart; normal approximation, corrected for ties.
 *
 * Source: E. L. Lehmann, Nonparametrics (1975), section 1.2 to 1.4.
 */
export function mannWhitney(lower: ArrayLike<number>, higher: ArrayLike<number>): TwoSampleResult {
  const [n, m] = [lower.length, higher.length];
  if (n === 0 || m === 0) return { pValue: 1, effect: 0.5 };
  const all = [
    ...Array.from(lower, (value) => ({ value, isHigher: false })),
    ...Array.from(higher, (value) => ({ value, isHigher: true })),
  ].sort((a, b) => a.value - b.value);
  let [rankSum, ties] = [0, 0];
  for (let start = 0; start < all.length; ) {
    let end = start + 1;
    while (end < all.length && all[end]?.value === all[start]?.value) end += 1;
    const rank = (start + 1 + end) / 2;
    rankSum += rank * all.slice(start, end).filter(({ isHigher }) => isHigher).length;
    ties += (end - start) ** 3 - (end - start);
    start = end;
  }
  const pairs = n * m;
  const wins = rankSum - (m * (m + 1)) / 2;
  const size = n + m;
  const variance = (pairs / 12) * (size + 1 - ties / (size * (size - 1)));
  const pValue = variance <= 0 ? 1 : normalTail((wins - pairs / 2 - 0.5) / Math.sqrt(variance));
  return { pValue, effect: wins / pairs };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
