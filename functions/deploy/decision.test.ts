import { describe, expect, it } from 'vitest';
import { judgeStage, medianInterval, rateDifferenceInterval } from './decision.ts';

const policy = {
  shares: [10, 100],
  minSamples: 50,
  maxErrorRate: 0.01,
  maxLatencyRatio: 1.5,
  stageTimeoutMs: 1000,
};
/** Latencies spread around a median. */
const samples = (answers: number, errors: number, medianMs = 10) => ({
  answers,
  errors,
  latenciesMs: Array.from({ length: answers - errors }, (_, index) => medianMs * (0.8 + (index % 5) / 10)),
});

describe('intervals', () => {
  it('agree with published values', () => {
    // Newcombe 1998, table II: 56/70 against 48/80 gives 0.0524 to 0.3339; 10/10 against 0/20 gives 0.6791 to 1.
    const [low, high] = rateDifferenceInterval({ hits: 56, total: 70 }, { hits: 48, total: 80 });
    expect(low).toBeCloseTo(0.0524, 3);
    expect(high).toBeCloseTo(0.3339, 3);
    expect(rateDifferenceInterval({ hits: 10, total: 10 }, { hits: 0, total: 20 })[0]).toBeCloseTo(0.6791, 3);
  });
  it('hold the median between order statistics', () => {
    const { median, interval } = medianInterval(Array.from({ length: 101 }, (_, index) => index));
    expect(median).toBe(50);
    expect(interval[0]).toBeGreaterThanOrEqual(38);
    expect(interval[1]).toBeLessThanOrEqual(62);
  });
  it('leave the median of five answers open: even the least of them is above it once in thirty times', () => {
    expect(medianInterval([1, 2, 3, 4, 5]).interval).toEqual([0, Number.POSITIVE_INFINITY]);
    expect(medianInterval([]).interval).toEqual([0, Number.POSITIVE_INFINITY]);
  });
});

describe('a canary stage', () => {
  it('passes with enough answers and nothing above its limit', () => {
    expect(judgeStage(samples(50, 0), samples(50, 0), policy).verdict).toBe('pass');
    expect(judgeStage(samples(50, 0), undefined, policy).verdict).toBe('pass');
  });
  it('waits for answers of both versions', () => {
    expect(judgeStage(samples(49, 0), samples(500, 0), policy).verdict).toBe('wait');
    expect(judgeStage(samples(500, 0), samples(0, 0), policy).verdict).toBe('wait');
  });
  it('does not take two errors of ten for proof of harm', () => {
    expect(judgeStage(samples(10, 2), samples(10, 1), policy).verdict).toBe('wait');
  });
  it('fails as soon as errors are beyond chance, before the minimum is reached', () => {
    const judged = judgeStage(samples(20, 15), samples(20, 0), policy);
    expect(judged.verdict).toBe('fail');
    expect(judged.reason).toMatch(/^errors: 0\.750/);
  });
  it('holds errors against those that the version before makes, too', () => {
    expect(judgeStage(samples(100, 30), samples(100, 30), policy).verdict).toBe('pass');
  });
  it('fails when every answer failed and there is no version to compare to', () => {
    expect(judgeStage(samples(8, 8), undefined, policy).verdict).toBe('fail');
  });
  it('does not take the first answers of a fresh process for its speed', () => {
    expect(judgeStage(samples(49, 0, 90), samples(49, 0, 6), policy).verdict).toBe('wait');
  });
  it('fails when answers take clearly longer, and not for one slow answer', () => {
    expect(judgeStage(samples(60, 0, 40), samples(60, 0, 10), policy).reason).toMatch(/^latency/);
    const one = samples(60, 0);
    expect(
      judgeStage({ ...one, latenciesMs: [...one.latenciesMs, 9000] }, samples(60, 0), policy).verdict,
    ).toBe('pass');
  });
});
