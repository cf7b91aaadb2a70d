import { describe, expect, it } from 'vitest';
import { metricsSummary } from '../events.ts';
import { evaluateClassifier, rocAucOf, wilsonInterval } from './metrics.ts';
import { seededRandom } from './random.ts';

/** Probabilities of the second of two classes, as rows of both. */
const binary = (...second: number[]) => Float32Array.from(second.flatMap((p) => [1 - p, p]));
const seed = { seed: 1 };

describe('evaluateClassifier', () => {
  it('counts right and wrong answers by class', () => {
    const labels = Int32Array.of(0, 0, 0, 1, 1, 1, 1);
    const report = evaluateClassifier(binary(0.1, 0.2, 0.9, 0.8, 0.7, 0.6, 0.3), labels, ['a', 'b'], seed);
    expect(report.confusion).toEqual([
      [2, 1],
      [1, 3],
    ]);
    expect(report.summary).toMatchObject({
      images: 7,
      accuracy: 5 / 7,
      perClass: {
        a: { precision: 2 / 3, recall: 2 / 3, f1: 2 / 3, support: 3 },
        b: { precision: 0.75, recall: 0.75, f1: 0.75, support: 4 },
      },
    });
    expect(metricsSummary.parse(report.summary)).toEqual(report.summary);
  });

  it('has the area under the ROC curve as the share of pairs in order, ties counted half', () => {
    const labels = Int32Array.of(0, 1, 0, 1, 1);
    const scores = [0.1, 0.4, 0.4, 0.8, 0.3];
    // Pairs (negative, positive): 0.1 is below all three; 0.4 ties with 0.4, is below 0.8, above 0.3.
    const report = evaluateClassifier(binary(...scores), labels, ['a', 'b'], seed);
    expect(report.summary.rocAuc).toBeCloseTo(4.5 / 6, 10);
    expect(report.roc.b?.auc).toBeCloseTo(4.5 / 6, 10);
    expect(report.roc.a?.auc).toBeCloseTo(4.5 / 6, 10);
    expect(report.roc.b?.curve).toEqual([
      [0, 0],
      [0, 1 / 3],
      [0.5, 2 / 3],
      [0.5, 1],
      [1, 1],
    ]);
  });

  it('has an AUC of 1 for a perfect order, 0 for the reverse, 0.5 without one', () => {
    const labels = Int32Array.of(0, 0, 1, 1);
    const auc = (...scores: number[]) =>
      evaluateClassifier(binary(...scores), labels, ['a', 'b'], seed).summary.rocAuc;
    expect(auc(0.1, 0.2, 0.8, 0.9)).toBe(1);
    expect(auc(0.9, 0.8, 0.2, 0.1)).toBe(0);
    expect(auc(0.5, 0.5, 0.5, 0.5)).toBe(0.5);
  });

  it('averages class against rest over more than two classes, leaving out those without photos', () => {
    const rows = [
      [0.8, 0.1, 0.1],
      [0.2, 0.7, 0.1],
      [0.3, 0.6, 0.1],
      [0.6, 0.3, 0.1],
    ];
    const labels = Int32Array.of(0, 1, 1, 0);
    const report = evaluateClassifier(Float32Array.from(rows.flat()), labels, ['a', 'b', 'c'], seed);
    expect(report.summary.rocAuc).toBe(1);
    expect(report.summary.perClass.c).toEqual({ precision: 0, recall: 0, f1: 0, support: 0 });
  });

  it('measures calibration: what is said of a photo against how often it is right', () => {
    // 10 photos at 0.9 of which 6 are right: confidence 0.9, accuracy 0.6.
    const labels = Int32Array.from({ length: 10 }, (_, i) => (i < 6 ? 1 : 0));
    const report = evaluateClassifier(binary(...new Array(10).fill(0.9)), labels, ['a', 'b'], seed);
    expect(report.summary.ece).toBeCloseTo(0.3, 6);
    expect(report.calibration.filter(({ photos }) => photos > 0)).toEqual([
      { upTo: 14 / 15, photos: 10, confidence: expect.closeTo(0.9, 6), accuracy: 0.6 },
    ]);
    expect(report.calibration.length).toBe(15);
  });

  it('draws the interval of the AUC from the seed, around the AUC', () => {
    const random = seededRandom(5);
    const labels = Int32Array.from({ length: 80 }, (_, i) => i % 2);
    const scores = Array.from(labels, (label) => Math.min(1, random() * 0.8 + label * 0.25));
    const report = (value: number) =>
      evaluateClassifier(binary(...scores), labels, ['a', 'b'], { seed: value });
    const { rocAucInterval, summary } = report(1);
    expect(rocAucInterval[0]).toBeLessThan(summary.rocAuc);
    expect(rocAucInterval[1]).toBeGreaterThan(summary.rocAuc);
    expect(report(1)).toEqual(report(1));
    expect(report(2).rocAucInterval).not.toEqual(rocAucInterval);
  });

  it.each([
    // As an implementation had them that went through every photo of every class: speed must not change figures.
    [2, 50, 1, 0.9113300492610837, 0.9967159277504105],
    [3, 100, 4, 0.8426542561469033, 0.9332846055088702],
    [5, 300, 6, 0.8166043718426235, 0.866298042619577],
  ])('has the same interval of %i classes and %i photos for ever', (classes, photos, drawn, low, high) => {
    const random = seededRandom(drawn);
    const labels = Int32Array.from({ length: photos }, () => Math.floor(random() * classes));
    const probabilities = new Float32Array(photos * classes);
    for (const [photo, label] of labels.entries()) {
      let sum = 0;
      const own = probabilities.subarray(photo * classes, (photo + 1) * classes);
      for (let c = 0; c < classes; c += 1) {
        const score = random() + (label === c ? 0.4 : 0);
        own[c] = score;
        sum += score;
      }
      for (const [c, score] of own.entries()) own[c] = score / sum;
    }
    const names = Array.from({ length: classes }, (_, c) => `c${c}`);
    const { rocAucInterval } = evaluateClassifier(probabilities, labels, names, { seed: drawn });
    expect(rocAucInterval).toEqual([low, high]);
  });

  it.each([
    // By scipy.optimize.brentq on Newcombe's formula.
    [3, 3, 0.50101876],
    [16, 31, 0.90439911],
    [200, 200, 0.99030628],
  ])('says of %i and %i photos in perfect order that others may not be', (ones, others, low) => {
    const labels = Int32Array.from({ length: ones + others }, (_, i) => (i < ones ? 1 : 0));
    const { rocAucInterval, summary } = evaluateClassifier(
      binary(...Array.from(labels, (label) => (label === 1 ? 0.9 : 0.2))),
      labels,
      ['a', 'b'],
      seed,
    );
    expect(summary.rocAuc).toBe(1);
    expect(rocAucInterval[0]).toBeCloseTo(low, 6);
    expect(rocAucInterval[1]).toBe(1);
  });

  it('says nothing of an area that photos of one class alone leave open', () => {
    const { rocAucInterval } = evaluateClassifier(binary(0.9, 0.8), Int32Array.of(1, 1), ['a', 'b'], seed);
    expect(rocAucInterval).toEqual([0, 1]);
  });

  it('stays finite when a wrong answer was sure', () => {
    const report = evaluateClassifier(binary(1, 1), Int32Array.of(0, 1), ['a', 'b'], seed);
    expect(Number.isFinite(report.logLoss)).toBe(true);
  });

  it('names an empty split and lengths that do not fit', () => {
    expect(() => evaluateClassifier(new Float32Array(), new Int32Array(), ['a', 'b'], seed)).toThrow(
      expect.objectContaining({ code: 'no-images' }),
    );
    expect(() => evaluateClassifier(binary(0.5), Int32Array.of(0, 1), ['a', 'b'], seed)).toThrow(
      '2 photos of 2 classes need 4 probabilities, not 2.',
    );
  });
});

describe('wilsonInterval', () => {
  it('agrees with published values', () => {
    // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    const published: [number, number, number, number][] = [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ];
    for (const [successes, trials, low, high] of published) {
      const interval = wilsonInterval(successes, trials);
      expect(interval[0]).toBeCloseTo(low, 4);
      expect(interval[1]).toBeCloseTo(high, 4);
    }
  });

  it('leaves open what was never tried', () => {
    expect(wilsonInterval(0, 0)).toEqual([0, 1]);
  });

  it('stays within 0 and 1 and keeps its width where all are right', () => {
    const [low, high] = wilsonInterval(45, 45);
    expect(high).toBe(1);
    expect(low).toBeCloseTo(0.9213, 3);
  });
});

describe('rocAucOf', () => {
  it('is the share of pairs in the right order, ties counted half', () => {
    const positives = Float32Array.of(0.9, 0.6, 0.5);
    const negatives = Float32Array.of(0.7, 0.5);
    // Of 6 pairs 3 are in order and 1 is a tie.
    expect(rocAucOf(positives, negatives)).toBeCloseTo(3.5 / 6);
    expect(rocAucOf(negatives, positives)).toBeCloseTo(2.5 / 6);
    expect(rocAucOf(positives, new Float32Array())).toBe(0.5);
  });
});
