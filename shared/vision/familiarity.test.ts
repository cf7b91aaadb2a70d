import { describe, expect, it } from 'vitest';
import { familiarityOf, learnFamiliarity } from './familiarity.ts';
import { normal, seededRandom } from './random.ts';

const dimension = 64;
const shape = { classes: 2, dimension };
const centre = [5, 6].map((seed) => {
  const random = seededRandom(seed);
  return Float32Array.from({ length: dimension }, () => Math.abs(normal(random)));
});

/** Photos around the centre of their class, which is the first for even ones; or around none. */
function draw(count: number, seed: number, around = centre) {
  const random = seededRandom(seed);
  const labels = Int32Array.from({ length: count }, (_, photo) => photo % 2);
  const features = Float32Array.from({ length: count * dimension }, (_, place) => {
    const photo = Math.floor(place / dimension);
    const scale = 1 + (photo % 5);
    return scale * ((around[photo % 2]?.[place % dimension] ?? 0) + 0.3 * normal(random));
  });
  return { features, labels };
}

const others = [50, 51].map((seed) => {
  const random = seededRandom(seed);
  return Float32Array.from({ length: dimension }, () => Math.abs(normal(random)));
});

describe('learnFamiliarity', () => {
  const learned = learnFamiliarity(draw(200, 1), draw(60, 2), shape, 0.9);

  it('keeps the share of new photos of the classes that it was told to keep', () => {
    const cosines = familiarityOf(learned.directions, draw(1000, 3).features, 1000);
    const kept = cosines.filter((cosine) => cosine >= learned.threshold).length / 1000;
    expect(kept).toBeGreaterThan(0.85);
    expect(kept).toBeLessThan(0.95);
  });

  it('finds photos of something else unfamiliar, however bright', () => {
    const cosines = familiarityOf(learned.directions, draw(100, 4, others).features, 100);
    expect(Math.max(...cosines)).toBeLessThan(learned.threshold);
  });

  it('does not hold a photo against a mean that its own group was part of', () => {
    // One group alone makes up the second class: without it nothing is left to be like.
    const training = draw(100, 7);
    const groups = Array.from(training.labels, (label, photo) => (label === 1 ? 'all of them' : `${photo}`));
    const none = { features: new Float32Array(), labels: new Int32Array() };
    const grouped = learnFamiliarity({ ...training, groups }, none, shape, 0.6);
    const alone = learnFamiliarity(training, none, shape, 0.6);
    expect(grouped.threshold).toBeLessThan(alone.threshold - 0.1);
    expect(grouped.directions).toEqual(alone.directions);
  });
});

describe('familiarityOf', () => {
  it('is the cosine with the nearest direction, and 0 for no features at all', () => {
    const directions = Float32Array.of(1, 0, 0, 1);
    const features = Float32Array.of(3, 4, -4, -3, 0, 0);
    const cosines = [...familiarityOf(directions, features, 3)];
    expect(cosines.map((cosine) => Math.round(cosine * 1000) / 1000)).toEqual([0.8, -0.6, 0]);
  });

  it('refuses directions of another dimension', () => {
    expect(() => familiarityOf(new Float32Array(7), new Float32Array(6), 2)).toThrow('do not fit');
  });
});
