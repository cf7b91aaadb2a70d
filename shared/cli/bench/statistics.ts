/** Median of several runs, with the least and the greatest as the spread. */
export interface Summary {
  median: number;
  low: number;
  high: number;
  runs: number;
}

/**
 * The value below which a share of the others lies, interpolated between neighbours (type 7 of Hyndman and Fan, 1996).
 *
 * @param share 0 to 1
 * @returns NaN without values
 */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * Math.min(1, Math.max(0, share));
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? below;
  return below + (above - below) * (place - Math.floor(place));
}

/** @returns NaN without values */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function summarise(values: readonly number[]): Summary {
  return {
    median: median(values),
    low: quantile(values, 0),
    high: quantile(values, 1),
    runs: values.length,
  };
}

/**
 * Compares two things measured side by side: the ratio of their medians, spread over the ratios of each round.
 *
 * @param values one a round
 * @param others of the same rounds, in the same order
 */
export function ratioOf(values: readonly number[], others: readonly number[]): Summary {
  return compare(values, others, (value, other) => value / other);
}

/** As {@link ratioOf}, for what is left when the other is taken away. */
export function differenceOf(values: readonly number[], others: readonly number[]): Summary {
  return compare(values, others, (value, other) => value - other);
}

function compare(
  values: readonly number[],
  others: readonly number[],
  against: (value: number, other: number) => number,
): Summary {
  const rounds = values.slice(0, others.length);
  const each = rounds.map((value, round) => against(value, others[round] ?? Number.NaN));
  return { ...summarise(each), median: against(median(rounds), median(others.slice(0, rounds.length))) };
}
