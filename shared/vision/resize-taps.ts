/** Eight-bit sRGB pixels of four bytes each (red, green, blue, one that is ignored), row-major. */
export interface PackedImage {
  /** `width * height * 4` bytes, at an address that is a multiple of four. */
  data: Uint8Array;
  width: number;
  height: number;
}

/** For each position along one axis of the result: where its source samples begin, and their weights. */
export interface Taps {
  /** First source sample of each position. */
  first: Int32Array;
  /** `count` weights of each position, in 256ths; they sum to 256, unused ones are 0. */
  weights: Int32Array;
  count: number;
}

const ONE = 256;

/**
 * The taps of a square's side along one axis of a photo: a triangle around each centre, whose half-width is one pixel of
 * the source when enlarging and one pixel of the result when shrinking.
 *
 * @param scale source pixels a pixel of the result
 */
export function tapsAlong(length: number, size: number, scale: number): Taps {
  const reach = Math.max(1, scale);
  const start = (length - size * scale) / 2;
  const count = Math.min(length, Math.ceil(2 * reach));
  const first = new Int32Array(size);
  const weights = new Int32Array(size * count);
  const triangle = new Float64Array(count);
  for (let position = 0; position < size; position++) {
    const centre = start + (position + 0.5) * scale;
    const begin = Math.min(Math.max(0, Math.ceil(centre - reach - 0.5)), length - count);
    first[position] = begin;
    for (let tap = 0; tap < count; tap++) {
      triangle[tap] = Math.max(0, 1 - Math.abs(begin + tap + 0.5 - centre) / reach);
    }
    roundWeights(triangle, weights, position * count);
  }
  return { first, weights, count };
}

/** Rounds weights so that they still sum to exactly one: a plain surface keeps its colour. */
function roundWeights(triangle: Float64Array, weights: Int32Array, at: number): void {
  let sum = 0;
  for (let tap = 0; tap < triangle.length; tap++) sum += triangle[tap] as number;
  let exact = 0;
  let given = 0;
  for (let tap = 0; tap < triangle.length; tap++) {
    exact += ((triangle[tap] as number) / sum) * ONE;
    const whole = Math.round(exact) - given;
    weights[at + tap] = whole;
    given += whole;
  }
}
