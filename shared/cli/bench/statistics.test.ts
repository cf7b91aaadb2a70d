import { describe, expect, it } from 'vitest';
import { differenceOf, median, quantile, ratioOf, summarise } from './statistics.ts';

describe('statistics of runs', () => {
  it('finds medians and quantiles whatever the order', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(quantile([30, 10, 20], 0)).toBe(10);
    expect(quantile([30, 10, 20], 1)).toBe(30);
    expect(quantile([0, 100], 0.99)).toBeCloseTo(99);
    expect(median([])).toBeNaN();
  });

  it('leaves the values as they are', () => {
    const values = [3, 1, 2];
    expect(summarise(values)).toEqual({ median: 2, low: 1, high: 3, runs: 3 });
    expect(values).toEqual([3, 1, 2]);
  });

  it('compares medians, and shows how far single rounds differ', () => {
    expect(ratioOf([10, 20, 30], [10, 10, 10])).toEqual({ median: 2, low: 1, high: 3, runs: 3 });
    expect(differenceOf([10, 20, 30], [1, 1, 1])).toEqual({ median: 19, low: 9, high: 29, runs: 3 });
  });

  it('leaves out rounds that only one of the two has', () => {
    expect(ratioOf([10, 20, 1000], [10, 10])).toMatchObject({ median: 1.5, runs: 2 });
    expect(ratioOf([10], [10, 1000])).toMatchObject({ median: 1, runs: 1 });
  });
});
