import type { PackedImage, Taps } from './resize-taps.ts';

/** `resize-simd.wat` as a WebAssembly module: what wat2wasm makes of it, which the test beside this compares. */
export const moduleBytes: Uint8Array = Buffer.from(
  [
    'AGFzbQEAAAABFQJgCH9/f39/f39/AGAGf39/f39/AAMDAgABBQMBAAEHJQMGbWVtb3J5AgAJc2NhbGVSb3dzAAAMc2NhbGVDb2x1',
    'bW5zAAEKvwMC0wECBH8BewNAQQAhCCAEIQoDQCAAIAMgCEECdGooAgBqIQn9DIAAAACAAAAAgAAAAIAAAAAhDCAFIQsDQCAMIAn9',
    'XQMA/QwAAAAAAAAAAAAAAAAAAAAA/Q0AEAQQARAFEAIQBhADEAcQIAr9CQIA/boB/a4BIQwgCUEIaiEJIApBBGohCiALQQFrIgsN',
    'AAsgByAMIAz9DQEFCQ0AAAAAAAAAAAAAAAD9WgIAACAHQQRqIQcgCEEBaiIIIAZIDQALIAAgAUECdGohACACQQFrIgINAAsL5wEC',
    'Bn8EewNAIAAgASAGQQJ0aigCAGohCUEAIQcDQCAJIAdBAnRqIQggAiEKIAMhC/0MgACAAIAAgACAAIAAgACAACEMIAwhDQNAIAj9',
    'AAQAIQ4gCv0IAQAhDyAMIA79iQEgD/2VAf2OASEMIA0gDv2KASAP/ZUB/Y4BIQ0gCCAEQQJ0aiEIIApBAmohCiALQQFrIgsNAAsg',
    'BSAHQQNsaiAMIA39DQEDBQkLDRETFRkbHQAAAAD9CwQAIAdBBGoiByAESA0ACyAFIARBA2xqIQUgAiADQQF0aiECIAZBAWoiBiAE',
    'SA0ACws=',
  ].join(''),
  'base64',
);

/** Photos of more pixels are left to the loops in JavaScript, since this memory keeps the size it once grew to. */
export const MOST_PIXELS = 500_000;
const PIXEL_BYTES = 4;
const PAGE_BYTES = 65_536;
/** What the module may read and write beyond the end of a region. */
const SLACK_BYTES = 16;

interface Passes {
  memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  scaleRows(source: number, width: number, height: number, ...rest: number[]): void;
  scaleColumns(source: number, ...rest: number[]): void;
}

/** The part of WebAssembly's interface that is used here: types for Node alone have none. */
interface WebAssemblyApi {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
}

let passes: Passes | undefined;

/** Made when first needed. */
function loadPasses(): Passes {
  if (passes !== undefined) return passes;
  const { Module, Instance } = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
  passes = new Instance(new Module(moduleBytes)).exports as Passes;
  return passes;
}

/** A view of the module's memory, which grows to hold it; earlier views may be of no use afterwards. */
function viewOf(offset: number, length: number): Uint8Array {
  const { memory } = loadPasses();
  const missing = offset + length + SLACK_BYTES - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  return new Uint8Array(memory.buffer, offset, length);
}

/**
 * Where a photo of so many pixels may be decoded to, so that {@link resizeVectors} need not copy it; good until the next
 * call of either.
 */
export function pixelMemory(pixels: number): Uint8Array {
  return viewOf(0, pixels * PIXEL_BYTES);
}

/** The part of a photo that the result is made of, and how. */
export interface Resizing {
  image: PackedImage;
  columns: Taps;
  rows: Taps;
  size: number;
}

/**
 * Both passes in vector instructions, to the bytes of the loops in JavaScript: a 400 x 300 photo takes 0.42 ms to 224
 * pixels, where they take 2.6.
 *
 * @param result where the pixels go, `size * size * 3` bytes
 */
export function resizeVectors({ image, columns, rows, size }: Resizing, result: Uint8Array): void {
  const { data, width, height } = image;
  const top = rows.first[0] ?? 0;
  const bottom = (rows.first[size - 1] ?? 0) + rows.count;
  const pairs = Math.ceil(columns.count / 2);
  const regions = regionsAfter(width * height * PIXEL_BYTES, {
    columnFirst: size * 4,
    columnWeights: size * pairs * 4,
    rowFirst: size * 4,
    rowWeights: size * rows.count * 2,
    narrowed: (bottom - top) * size * PIXEL_BYTES,
    result: size * size * 3,
  });
  const { memory, scaleRows, scaleColumns } = loadPasses();
  const isInPlace = data.buffer === memory.buffer;
  // Growing keeps what is in it, while views of it from before end.
  viewOf(0, regions.end);
  const { buffer } = memory;
  if (!isInPlace) new Uint8Array(buffer).set(data);
  new Int32Array(buffer, regions.columnFirst, size).set(columns.first.map((first) => first * PIXEL_BYTES));
  new Int32Array(buffer, regions.rowFirst, size).set(
    rows.first.map((first) => (first - top) * size * PIXEL_BYTES),
  );
  setPairs(new Int16Array(buffer, regions.columnWeights, size * pairs * 2), columns);
  new Int16Array(buffer, regions.rowWeights, size * rows.count).set(rows.weights);
  const source = top * width * PIXEL_BYTES;
  const columnTaps = [regions.columnFirst, regions.columnWeights, pairs];
  scaleRows(source, width, bottom - top, ...columnTaps, size, regions.narrowed);
  const rowTaps = [regions.rowFirst, regions.rowWeights, rows.count];
  scaleColumns(regions.narrowed, ...rowTaps, size, regions.result);
  result.set(new Uint8Array(buffer, regions.result, result.length));
}

/** Weights in pairs, an odd one out beside a zero. */
function setPairs(target: Int16Array, { weights, count }: Taps): void {
  if (count % 2 === 0) {
    target.set(weights);
    return;
  }
  for (let to = 0, from = 0; from < weights.length; to += count + 1, from += count) {
    target.set(weights.subarray(from, from + count), to);
    target[to + count] = 0;
  }
}

type Region = 'columnFirst' | 'columnWeights' | 'rowFirst' | 'rowWeights' | 'narrowed' | 'result';

/** Lays regions out behind the photo, each on a multiple of 16 bytes. */
function regionsAfter(photoBytes: number, lengths: Record<Region, number>): Record<Region | 'end', number> {
  const laid = { end: aligned(photoBytes) } as Record<Region | 'end', number>;
  for (const [name, length] of Object.entries(lengths) as [Region, number][]) {
    laid[name] = laid.end;
    laid.end = aligned(laid.end + length);
  }
  return laid;
}

function aligned(offset: number): number {
  return Math.ceil((offset + SLACK_BYTES) / SLACK_BYTES) * SLACK_BYTES;
}
