import { describe, expect, it } from 'vitest';
import { bootstrapIntervals } from './bootstrap.ts';
import { wilsonInterval } from './metrics.ts';
import { sliceAccuracy } from './slices.ts';

describe('sliceAccuracy', () => {
  it('counts each photo once by brightness, by size and by source, and unknown ones not at all', () => {
    const facts = [
      { brightness: 0.1, shortSide: 100, source: 'manifest' },
      { brightness: 0.2, shortSide: 500, source: 'manifest' },
      { brightness: 0.5, shortSide: 300, source: 'feedback' },
      {},
    ];
    const slices = sliceAccuracy(facts, [true, false, true, false]);
    expect(slices.map(({ by, name, photos, accuracy }) => [by, name, photos, accuracy])).toEqual([
      ['brightness', 'dark (below 0.3)', 2, 0.5],
      ['brightness', 'in between', 1, 1],
      ['shorter side', '224 pixels or more', 2, 0.5],
      ['shorter side', 'below 224 pixels', 1, 1],
      ['source of the label', 'feedback', 1, 1],
      ['source of the label', 'manifest', 2, 0.5],
    ]);
    for (const { accuracy, interval } of slices) {
      expect(interval[0]).toBeLessThanOrEqual(accuracy);
      expect(interval[1]).toBeGreaterThanOrEqual(accuracy);
    }
  });
});

describe('bootstrapIntervals', () => {
  const classes = ['daisy', 'grass'];
  const labels = Int32Array.from({ length: 200 }, (_, photo) => photo % 2);
  /** Daisies are all known; of grass one in five is called daisy. */
  const probabilities = Float32Array.from({ length: 400 }, (_, i) => {
    const photo = Math.floor(i / 2);
    const answer = photo % 2 === 1 && photo % 5 === 1 ? 0 : photo % 2;
    return i % 2 === answer ? 0.9 : 0.1;
  });

  it('holds the value that was measured, as wide as the binomial distribution has it', () => {
    const { accuracy, perClass, overconfidence } = bootstrapIntervals(probabilities, labels, classes, {
      seed: 1,
    });
    expect(accuracy[0]).toBeLessThan(0.9);
    expect(accuracy[1]).toBeGreaterThan(0.9);
    // Of 100 photos a fifth is wrong: a standard deviation of 0.04 in the class, 0.02 in all.
    expect(accuracy[1] - accuracy[0]).toBeCloseTo(4 * 0.02, 1);
    // All right, which says little of few photos: a bootstrap would say [1, 1].
    expect(perClass.daisy?.recall).toEqual(wilsonInterval(100, 100));
    expect(perClass.grass?.precision).toEqual(wilsonInterval(80, 80));
    const [low = 0, high = 0] = perClass.grass?.recall ?? [];
    expect(high - low).toBeCloseTo(4 * 0.04, 1);
    expect(overconfidence[0]).toBeLessThan(0);
    expect(overconfidence[1]).toBeGreaterThan(0);
  });

  it('leaves open, where all answers are right, that others may be wrong', () => {
    const all = Float32Array.from({ length: 400 }, (_, i) => (i % 2 === Math.floor(i / 2) % 2 ? 0.9 : 0.1));
    expect(bootstrapIntervals(all, labels, classes, { seed: 1 }).accuracy).toEqual(wilsonInterval(200, 200));
  });

  it('is the same for the same seed', () => {
    const once = bootstrapIntervals(probabilities, labels, classes, { seed: 4 });
    expect(bootstrapIntervals(probabilities, labels, classes, { seed: 4 })).toEqual(once);
  });
});
