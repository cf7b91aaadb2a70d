import { describe, expect, it } from 'vitest';
import { domainClassifier } from './domain-classifier.ts';
import { normal, type Random, seededRandom } from './random.ts';
import { kolmogorovSmirnov, mannWhitney, populationStabilityIndex, sameMix } from './two-sample.ts';

const numbers = (random: Random, count: number, shift = 0) =>
  Array.from({ length: count }, () => normal(random) + shift);
const rows = (random: Random, count: number, shift = 0) =>
  Array.from({ length: count }, () => numbers(random, 8, shift));
const labels = (random: Random, count: number, share: number) =>
  Array.from({ length: count }, () => (random() < share ? 'dandelion' : 'grass'));

/** Share of 1500 pairs of samples of one distribution that a test calls different at this level. */
function falseAlarms(level: number, pValue: (random: Random) => number): number {
  const random = seededRandom(11);
  const pairs = 1500;
  return Array.from({ length: pairs }, () => pValue(random)).filter((p) => p <= level).length / pairs;
}

describe('tests of two samples', () => {
  const tests = {
    'Kolmogorov and Smirnov': (random: Random) =>
      kolmogorovSmirnov(numbers(random, 60), numbers(random, 90)).pValue,
    'chi-squared': (random: Random) => sameMix(labels(random, 60, 0.3), labels(random, 90, 0.3)).pValue,
    'domain classifier': (random: Random) =>
      domainClassifier(rows(random, 60), rows(random, 60), random).pValue,
  };
  it.each(Object.entries(tests))('%s cry wolf no oftener than their level says', (_name, pValue) => {
    // Three standard errors above 5 % and 1 %.
    expect(falseAlarms(0.05, pValue)).toBeLessThan(0.067);
    expect(falseAlarms(0.01, pValue)).toBeLessThan(0.018);
    // A test that never speaks would pass the above.
    expect(falseAlarms(0.2, pValue)).toBeGreaterThan(0.1);
  });

  it('see a difference, and measure it', () => {
    const random = seededRandom(5);
    const shifted = kolmogorovSmirnov(numbers(random, 3000), numbers(random, 3000, 1));
    // 2 Phi(1/2) - 1
    expect(shifted.effect).toBeCloseTo(0.383, 1);
    expect(shifted.pValue).toBeLessThan(1e-12);
    const mix = sameMix(labels(random, 400, 0.5), labels(random, 400, 0.8));
    expect(mix.effect).toBeCloseTo(0.3, 1);
    expect(mix.pValue).toBeLessThan(1e-12);
    const domain = domainClassifier(rows(random, 200), rows(random, 200, 0.5), random);
    expect(domain.effect).toBeGreaterThan(0.75);
    expect(domain.pValue).toBeLessThan(1e-8);
  });

  it('agree with worked examples', () => {
    // SciPy 1.17: mannwhitneyu(higher, lower, alternative='greater', method='asymptotic'), chi2_contingency.
    const { pValue, effect } = mannWhitney([1, 2, 3, 4], [3, 5, 6, 7]);
    expect(effect).toBeCloseTo(14.5 / 16, 10);
    expect(pValue).toBeCloseTo(0.04071455, 7);
    const mix = (a: number, b: number, c: number) => [
      ...Array.from({ length: a }, () => 'a'),
      ...Array.from({ length: b }, () => 'b'),
      ...Array.from({ length: c }, () => 'c'),
    ];
    expect(sameMix(mix(30, 50, 20), mix(60, 50, 40)).pValue).toBeCloseTo(0.03104796, 7);
    expect(populationStabilityIndex([1, 2, 3, 4], [1, 2, 3, 4])).toBe(0);
  });

  it('take samples that say nothing', () => {
    expect(kolmogorovSmirnov([], [1])).toEqual({ pValue: 1, effect: 0 });
    expect(kolmogorovSmirnov([4, 4, 4], [4, 4])).toEqual({ pValue: 1, effect: 0 });
    expect(sameMix(['a', 'a'], ['a'])).toEqual({ pValue: 1, effect: 0 });
    const flat = Array.from({ length: 20 }, () => [1, 1]);
    expect(domainClassifier(flat, flat, seededRandom(1)).pValue).toBe(1);
    expect(mannWhitney([1, 1], [1, 1]).pValue).toBe(1);
  });

  it('count rare categories as one rather than trust them', () => {
    const many = Array.from({ length: 100 }, () => 'common');
    const rare = Array.from({ length: 6 }, (_, index) => `rare ${index}`);
    const { pValue, effect } = sameMix([...many, ...rare], [...many]);
    expect(effect).toBeCloseTo(6 / 106, 3);
    expect(pValue).toBeGreaterThan(0.01);
  });
});
