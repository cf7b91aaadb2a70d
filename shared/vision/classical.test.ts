import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from './classical.ts';
import { applyHead, trainHead } from './classifier.ts';
import { decodePhoto } from './decode.ts';
import { type drawnClasses, drawPhoto } from './drawn.ts';

const size = 224;

async function featuresOf(label: (typeof drawnClasses)[number], seed: number): Promise<Float32Array> {
  const { pixels } = await decodePhoto(await drawPhoto(label, seed));
  return classicalFeatures(pixels, size);
}

describe('classicalFeatures', () => {
  test('gives as many finite numbers as it says, the same each time', async () => {
    const { pixels } = await decodePhoto(await drawPhoto('dandelion', 1));
    const features = classicalFeatures(pixels, size);
    expect(features).toHaveLength(CLASSICAL_EXTRACTOR.dimension);
    expect(features.every(Number.isFinite)).toBe(true);
    expect(classicalFeatures(pixels, size)).toEqual(features);
  });

  test('gives finite numbers for any pixels, flat ones too', () => {
    const colour = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255));
    fc.assert(
      fc.property(colour, colour, fc.integer({ min: 112, max: 130 }), (one, other, side) => {
        const pixels = Uint8Array.from({ length: side * side * 3 }, (_, at) => {
          return (at < side * side ? one : other)[at % 3] ?? 0;
        });
        expect(classicalFeatures(pixels, side).every(Number.isFinite)).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test('does not see where a flower stands, but that it is there', () => {
    const scene = (left: number | undefined) =>
      Uint8Array.from({ length: size * size * 3 }, (_, at) => {
        const [x, y] = [Math.floor(at / 3) % size, Math.floor(at / 3 / size)];
        const isFlower = left !== undefined && x >= left && x < left + 28 && y >= 84 && y < 112;
        return (isFlower ? [250, 210, 20] : [50, 110, 40])[at % 3] ?? 0;
      });
    const distance = (a: Float32Array, b: Float32Array) =>
      Math.hypot(...a.map((value, at) => value - (b[at] ?? 0)));
    const [here, there, none] = [56, 140, undefined].map((left) => classicalFeatures(scene(left), size));
    if (here === undefined || there === undefined || none === undefined) throw new Error('three scenes');
    expect(distance(here, there)).toBeLessThan(0.1 * distance(here, none));
  });
});

describe('a linear head on the features', () => {
  const classes = ['dandelion', 'grass'] as const;

  const photos = async (from: number, to: number) => {
    const drawn = classes.flatMap((label, index) =>
      Array.from({ length: to - from }, async (_, at) => ({
        index,
        vector: await featuresOf(label, from + at),
      })),
    );
    const all = await Promise.all(drawn);
    return {
      features: Float32Array.from(all.flatMap(({ vector }) => [...vector])),
      labels: Int32Array.from(all, ({ index }) => index),
    };
  };

  test('tells drawn dandelions from drawn grass it has not seen', async () => {
    const { dimension } = CLASSICAL_EXTRACTOR;
    const head = await trainHead({ ...(await photos(0, 20)), dimension, classes: [...classes], seed: 1 }, {});
    const unseen = await photos(100, 115);
    const probabilities = applyHead(head, unseen.features, unseen.labels.length);
    const right = unseen.labels.filter((label, at) => (probabilities[at * 2 + label] ?? 0) > 0.5).length;
    expect(right / unseen.labels.length).toBeGreaterThan(0.85);
  });
});
