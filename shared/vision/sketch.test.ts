import { describe, expect, it } from 'vitest';
import { normal, seededRandom } from './random.ts';
import { SKETCH, sketchFeatures } from './sketch.ts';

const random = seededRandom(7);
const vector = (shift = 0) => Float32Array.from({ length: 1280 }, () => Math.abs(normal(random)) + shift);
const distance = (one: ArrayLike<number>, other: ArrayLike<number>) =>
  Math.hypot(...Array.from(one, (value, index) => value - (other[index] ?? 0)));

describe('sketchFeatures', () => {
  it('keeps distances, on average as they are', () => {
    const ratios = Array.from({ length: 300 }, () => {
      const [one, other] = [vector(), vector()];
      return (distance(sketchFeatures(one), sketchFeatures(other)) / distance(one, other)) ** 2;
    });
    const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
    expect(mean).toBeGreaterThan(0.93);
    expect(mean).toBeLessThan(1.07);
    expect(Math.max(...ratios)).toBeLessThan(3);
  });

  it('is linear: the sketch of a sum is the sum of the sketches', () => {
    const [one, other] = [vector(), vector()];
    const sum = sketchFeatures(one.map((value, index) => value + (other[index] ?? 0)));
    const [ofOne, ofOther] = [sketchFeatures(one), sketchFeatures(other)];
    for (const [index, value] of sum.entries())
      expect(value).toBeCloseTo((ofOne[index] ?? 0) + (ofOther[index] ?? 0), 2);
  });

  it('is the same for ever under one id: records of all releases are compared', () => {
    expect(SKETCH.id).toBe('count-sketch-32-v1');
    const sketch = sketchFeatures(Float32Array.from({ length: 1280 }, (_, index) => (index % 7) + 1));
    expect([...sketch].slice(0, 8)).toEqual([-4, -17, -93, -17, 60, 13, -21, -46]);
  });
});
