import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { resizeToCover } from './resize.ts';
import type { PackedImage } from './resize-taps.ts';

function image(width: number, height: number, colourAt: (x: number, y: number) => number[]): PackedImage {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) data.set([...colourAt(x, y), 255], (y * width + x) * 4);
  }
  return { data, width, height };
}

/** The same filter, written for reading: a weighted mean over all pixels, in floating point. */
function expectedAt({ data, width, height }: PackedImage, size: number, x: number, y: number): number[] {
  const scale = Math.min(width, height) / size;
  const reach = Math.max(1, scale);
  const weightsAlong = (length: number, position: number) => {
    const centre = (length - size * scale) / 2 + (position + 0.5) * scale;
    const raw = Array.from({ length }, (_, at) => Math.max(0, 1 - Math.abs(at + 0.5 - centre) / reach));
    const sum = raw.reduce((total, weight) => total + weight, 0);
    return raw.map((weight) => weight / sum);
  };
  const columns = weightsAlong(width, x);
  const rows = weightsAlong(height, y);
  return [0, 1, 2].map((channel) => {
    let mean = 0;
    for (const [row, weight] of rows.entries()) {
      for (const [column, other] of columns.entries()) {
        mean += weight * other * (data[(row * width + column) * 4 + channel] ?? 0);
      }
    }
    return mean;
  });
}

describe('resizeToCover', () => {
  const side = fc.integer({ min: 1, max: 60 });

  test('weighs the pixels around each centre by a triangle, whatever the sizes', () => {
    fc.assert(
      fc.property(side, side, fc.integer({ min: 1, max: 40 }), fc.integer(), (width, height, size, seed) => {
        const colour = (x: number, y: number) =>
          [1, 2, 3].map((factor) => (Math.imul(x * 31 + y * 17 + seed, 2654435761 * factor) >>> 24) & 0xff);
        const photo = image(width, height, colour);
        const pixels = resizeToCover(photo, size);
        expect(pixels).toHaveLength(size * size * 3);
        for (const [x, y] of [
          [0, 0],
          [size - 1, size - 1],
          [size >> 1, size >> 2],
        ] as const) {
          const expected = expectedAt(photo, size, x, y);
          // Weights of eight bits, rounded twice.
          for (const [channel, value] of expected.entries()) {
            expect(Math.abs((pixels[(y * size + x) * 3 + channel] ?? -9) - value)).toBeLessThan(3);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('keeps a plain surface exactly, white and black too', () => {
    fc.assert(
      fc.property(
        side,
        side,
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom(0, 1, 127, 254, 255),
        (w, h, size, v) => {
          expect(
            resizeToCover(
              image(w, h, () => [v, v, v]),
              size,
            ).every((value) => value === v),
          ).toBe(true);
        },
      ),
    );
  });

  test('gives every photo pixels of its own', () => {
    const first = resizeToCover(
      image(20, 10, () => [200, 0, 0]),
      8,
    );
    resizeToCover(
      image(30, 20, () => [0, 0, 200]),
      8,
    );
    expect([...first.subarray(0, 3)]).toEqual([200, 0, 0]);
  });
});
