import { describe, expect, it } from 'vitest';
import { augmentPhoto } from './augment.ts';
import { seededRandom } from './random.ts';

const size = 48;

/** One colour, with a grain that tells photos apart. */
function plain(colour: readonly [number, number, number], seed = 1): Uint8Array {
  const random = seededRandom(seed);
  return Uint8Array.from(
    { length: size * size * 3 },
    (_, at) => (colour[at % 3] ?? 0) + (random() < 0.5 ? 1 : 0),
  );
}

/** Black but for a white square of 24 pixels in the middle. */
function framed(seed: number): Uint8Array {
  const pixels = plain([0, 0, 0], seed);
  for (let y = 12; y < 36; y += 1) pixels.fill(255, (y * size + 12) * 3, (y * size + 36) * 3);
  return pixels;
}

const meanOf = (pixels: Uint8Array, channel: number) =>
  pixels.reduce((sum, value, at) => sum + (at % 3 === channel ? value : 0), 0) / (size * size);

describe('augmentPhoto', () => {
  it('gives a photo the same view each time, and leaves the photo as it was', () => {
    const photo = framed(3);
    const before = photo.slice();
    const view = augmentPhoto(photo, size);
    expect(view).toHaveLength(photo.length);
    expect(augmentPhoto(photo.slice(), size)).toEqual(view);
    expect(view).not.toEqual(photo);
    expect(photo).toEqual(before);
  });

  it('gives other photos other light', () => {
    const means = [1, 2, 3, 4, 5].map((seed) => meanOf(augmentPhoto(plain([90, 90, 90], seed), size), 0));
    expect(new Set(means).size).toBe(5);
  });

  it('fills all of the view with the photo and its reflections', () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const view = augmentPhoto(plain([120, 120, 120], seed), size);
      // Grain of one step, contrast of 1.4 at most: no place is left empty.
      expect(Math.max(...view) - Math.min(...view)).toBeLessThan(6);
    }
  });

  it('keeps hues apart: more or less colour, but the same colour', () => {
    for (let seed = 0; seed < 20; seed += 1) {
      const view = augmentPhoto(plain([140, 60, 30], seed), size);
      expect(meanOf(view, 0)).toBeGreaterThan(meanOf(view, 1));
      expect(meanOf(view, 1)).toBeGreaterThan(meanOf(view, 2));
    }
  });
});
