import { wilsonInterval } from '../../shared/vision/metrics.ts';

/** Answers of one version while a stage lasted. */
export interface Samples {
  answers: number;
  errors: number;
  /** Of answers without error, in milliseconds. */
  latenciesMs: readonly number[];
}

export interface CanaryPolicy {
  /** Percent of the traffic, one stage each. */
  shares: readonly number[];
  minSamples: number;
  maxErrorRate: number;
  maxLatencyRatio: number;
  stageTimeoutMs: number;
}

export interface Verdict {
  verdict: 'pass' | 'fail' | 'wait';
  reason: string;
  evidence: Record<string, unknown>;
}

export type Interval = readonly [low: number, high: number];

/** Two-sided 95 %. */
const Z = 1.96;

/** Interval of the difference of two rates, first less second (Newcombe 1998, method 10). */
export function rateDifferenceInterval(
  first: { hits: number; total: number },
  second: { hits: number; total: number },
): Interval {
  const [low1, high1] = wilsonInterval(first.hits, first.total);
  const [low2, high2] = wilsonInterval(second.hits, second.total);
  const [rate1, rate2] = [first.hits / first.total, second.hits / second.total];
  const difference = rate1 - rate2;
  return [
    difference - Math.hypot(rate1 - low1, high2 - rate2),
    difference + Math.hypot(high1 - rate1, rate2 - low2),
  ];
}

/**
 * Median with its distribution-free 95 % interval between order statistics (Conover 1999, 3.2); of too few values there are
 * no such statistics, and the interval is open.
 */
export function medianInterval(values: readonly number[]): { median: number; interval: Interval } {
  const sorted = [...values].sort((first, second) => first - second);
  const at = (rank: number) => sorted[rank] ?? Number.NaN;
  const half = (Z * Math.sqrt(sorted.length)) / 2;
  const middle = sorted.length / 2;
  const median = (at(Math.ceil(middle) - 1) + at(Math.floor(middle))) / 2;
  const [low, high] = [sorted[Math.floor(middle - half) - 1], sorted[Math.ceil(middle + half)]];
  return { median, interval: [low ?? 0, high ?? Number.POSITIVE_INFINITY] };
}

/**
 * Judges one stage: `fail` only where the figures show harm beyond chance, `pass` with enough of them and none above
 * its limit, `wait` otherwise. With no version to compare to, errors are held against the limit alone. Latencies count from
 * the minimum of answers on: the first ones of a fresh process are slow together, which no interval allows for.
 */
export function judgeStage(candidate: Samples, previous: Samples | undefined, policy: CanaryPolicy): Verdict {
  const compared = previous !== undefined && previous.answers > 0 ? previous : undefined;
  const errors = errorsOf(candidate, compared);
  const latency = latencyOf(candidate, compared);
  const evidence = {
    candidate: { answers: candidate.answers, errors: candidate.errors },
    previous: previous && { answers: previous.answers, errors: previous.errors },
    errorRateAbove: errors,
    latencyRatio: latency,
    limits: { errorRate: policy.maxErrorRate, latencyRatio: policy.maxLatencyRatio },
  };
  if (errors !== undefined && errors.interval[0] > policy.maxErrorRate) {
    return { verdict: 'fail', reason: `errors: ${sentence(errors, policy.maxErrorRate)}`, evidence };
  }
  const counts = [candidate, ...(previous === undefined ? [] : [previous])].map(({ answers }) => answers);
  const fewest = Math.min(...counts);
  if (fewest < policy.minSamples) {
    return { verdict: 'wait', reason: `${fewest} of ${policy.minSamples} answers so far`, evidence };
  }
  if (latency !== undefined && latency.interval[0] > policy.maxLatencyRatio) {
    return { verdict: 'fail', reason: `latency: ${sentence(latency, policy.maxLatencyRatio)}`, evidence };
  }
  if (errors !== undefined && errors.estimate > policy.maxErrorRate) {
    return {
      verdict: 'wait',
      reason: `undecided: errors ${sentence(errors, policy.maxErrorRate)}`,
      evidence,
    };
  }
  if (latency !== undefined && latency.estimate > policy.maxLatencyRatio) {
    return {
      verdict: 'wait',
      reason: `undecided: latency ${sentence(latency, policy.maxLatencyRatio)}`,
      evidence,
    };
  }
  return { verdict: 'pass', reason: 'errors and latency are within their limits', evidence };
}

interface Estimate {
  estimate: number;
  interval: Interval;
}

function errorsOf(candidate: Samples, previous: Samples | undefined): Estimate | undefined {
  if (candidate.answers === 0) return undefined;
  const first = { hits: candidate.errors, total: candidate.answers };
  if (previous === undefined) {
    return { estimate: first.hits / first.total, interval: wilsonInterval(first.hits, first.total) };
  }
  const second = { hits: previous.errors, total: previous.answers };
  const estimate = first.hits / first.total - second.hits / second.total;
  return { estimate, interval: rateDifferenceInterval(first, second) };
}

/** The bounds divide the far ends of both intervals, so they are wider than 95 %. */
function latencyOf(candidate: Samples, previous: Samples | undefined): Estimate | undefined {
  if (candidate.latenciesMs.length === 0 || previous === undefined || previous.latenciesMs.length === 0) {
    return undefined;
  }
  const first = medianInterval(candidate.latenciesMs);
  const second = medianInterval(previous.latenciesMs);
  return {
    estimate: first.median / second.median,
    interval: [first.interval[0] / second.interval[1], first.interval[1] / second.interval[0]],
  };
}

function sentence({ estimate, interval }: Estimate, limit: number): string {
  const [low, high] = interval.map((bound) => bound.toFixed(3));
  return `${estimate.toFixed(3)} (95 % interval ${low} to ${high}), the limit is ${limit}`;
}
