import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import wabt from 'wabt';
import { resizeLoops } from './resize.ts';
import { moduleBytes, pixelMemory, type Resizing, resizeVectors } from './resize-simd.ts';
import { type PackedImage, tapsAlong } from './resize-taps.ts';

function resizingOf(image: PackedImage, size: number): Resizing {
  const { width, height } = image;
  const scale = Math.min(width, height) / size;
  return { image, columns: tapsAlong(width, size, scale), rows: tapsAlong(height, size, scale), size };
}

function pixelsOf(resize: typeof resizeLoops, image: PackedImage, size: number): Uint8Array {
  const result = new Uint8Array(size * size * 3);
  resize(resizingOf(image, size), result);
  return result;
}

it('carries what wat2wasm makes of its source', async () => {
  const { parseWat } = await wabt();
  const source = await readFile(new URL('./resize-simd.wat', import.meta.url), 'utf8');
  const module = parseWat('resize-simd.wat', source, { simd: true });
  module.validate();
  expect(Buffer.from(module.toBinary({}).buffer).toString('base64')).toBe(
    Buffer.from(moduleBytes).toString('base64'),
  );
});

const side = fc.integer({ min: 1, max: 400 });
const photo = fc.tuple(side, side, fc.integer({ min: 0, max: 2 ** 31 - 1 })).map(([width, height, seed]) => {
  let state = seed;
  const data = Uint8Array.from({ length: width * height * 4 }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    // The ends of the range often: there sums overflow first.
    return (state >>> 28) % 3 === 0 ? 255 : state >>> 20;
  });
  return { data, width, height };
});

it('gives the very bytes of the loops in JavaScript', () => {
  fc.assert(
    fc.property(photo, fc.integer({ min: 1, max: 230 }), (image: PackedImage, size) => {
      expect(Buffer.compare(pixelsOf(resizeVectors, image, size), pixelsOf(resizeLoops, image, size))).toBe(
        0,
      );
    }),
    { numRuns: 60 },
  );
});

it('takes a photo from its own memory, however much that has to grow for it', () => {
  for (const [width, height] of [
    [40, 30],
    [700, 700],
    [40, 30],
  ] as const) {
    const pixels = Uint8Array.from({ length: width * height * 4 }, (_, at) => at * 7);
    const memory = pixelMemory(width * height);
    memory.set(pixels);
    const image = { data: memory, width, height };
    const expected = pixelsOf(resizeLoops, { data: pixels, width, height }, 224);
    expect(Buffer.compare(pixelsOf(resizeVectors, image, 224), expected)).toBe(0);
  }
});
