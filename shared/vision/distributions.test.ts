import { describe, expect, it } from 'vitest';
import { chiSquaredTail, hypergeometricHead, kolmogorovTail, normalTail } from './distributions.ts';

// Values of tables and of SciPy 1.17 (chi2.sf, norm.sf, kstwobign.sf).
describe('tails of distributions', () => {
  it.each([
    [3.841458820694124, 1, 0.05],
    [18.307038053275146, 10, 0.05],
    [100, 3, 1.5541594313896026e-21],
    [0.5, 4, 0.9735009788392561],
    [0, 2, 1],
  ])('chi-squared: P(X >= %f) with %i degrees of freedom is %f', (value, degrees, tail) => {
    expect(chiSquaredTail(value, degrees) / tail).toBeCloseTo(1, 4);
  });

  it.each([
    [0, 0.5],
    [1.959963984540054, 0.025],
    [-1, 0.8413447460685429],
    [6, 9.86587645037698e-10],
  ])('normal: P(Z >= %f) is %f', (z, tail) => {
    expect(normalTail(z) / tail).toBeCloseTo(1, 6);
  });

  it.each([
    [0.1, 1],
    [0.5, 0.9639452436648751],
    [1.35809864, 0.05],
    [1.9494746, 0.001],
    [4, 2.532833109818835e-14],
  ])('Kolmogorov: P(K >= %f) is %f', (lambda, tail) => {
    expect(kolmogorovTail(lambda) / tail).toBeCloseTo(1, 4);
  });

  // SciPy's fisher_exact with alternative="less".
  it.each([
    [20, 30, 45, 47, 0.000956008891867631],
    [28, 30, 45, 47, 0.508736213999372],
    [30, 30, 45, 47, 1],
    [0, 20, 900, 1000, 5.818422542445573e-20],
    [850, 1000, 940, 1000, 2.3048022261992617e-11],
  ])('hypergeometric: at most %i of %i where %i of %i others are', (value, drawn, others, rest, head) => {
    const found = hypergeometricHead(value, { drawn, marked: value + others, total: drawn + rest });
    expect(found / head).toBeCloseTo(1, 6);
  });
});
