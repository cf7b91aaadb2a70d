import { DandelionError } from '../errors.ts';
import type { DecodedPhoto } from './decode.ts';

/** Sides of the reduced grey image and of the square of low frequencies kept from it. */
const reducedSide = 32;
const keptSide = 8;

/**
 * DCT-based perceptual hash: photos that look alike have hashes that differ in few bits, whatever their
 * encoding, size or overall brightness. Grey 32 x 32 image, two-dimensional DCT-II, the 8 x 8 lowest
 * frequencies without the row and column of constant ones, one bit each: above the median or not.
 *
 * Source: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.
 *
 * @returns 64 bits as 16 lower-case hex digits
 */
export function perceptualHash(photo: Pick<DecodedPhoto, 'pixels' | 'size'>): string {
  const frequencies = lowFrequencies(reduceToGrey(photo));
  const sorted = frequencies.toSorted();
  const median = ((sorted[31] ?? 0) + (sorted[32] ?? 0)) / 2;
  let hash = '';
  for (let at = 0; at < frequencies.length; at += 4) {
    const bits = frequencies.subarray(at, at + 4);
    hash += bits.reduce((digit, value) => digit * 2 + (value > median ? 1 : 0), 0).toString(16);
  }
  return hash;
}

/** Mean luma (ITU-R BT.601, 0 to 255) of each cell of a 32 x 32 grid, row-major. */
function reduceToGrey({ pixels, size }: Pick<DecodedPhoto, 'pixels' | 'size'>): Float64Array {
  const grey = new Float64Array(reducedSide * reducedSide);
  const edge = (cell: number) => Math.floor((cell * size) / reducedSide);
  for (let row = 0; row < reducedSide; row++) {
    for (let column = 0; column < reducedSide; column++) {
      // Below 32 pixels a cell would be empty: it takes at least the pixel it begins at.
      const bottom = Math.max(edge(row + 1), edge(row) + 1);
      const right = Math.max(edge(column + 1), edge(column) + 1);
      let sum = 0;
      for (let y = edge(row); y < bottom; y++) {
        for (let at = (y * size + edge(column)) * 3; at < (y * size + right) * 3; at += 3) {
          sum += 299 * (pixels[at] ?? 0) + 587 * (pixels[at + 1] ?? 0) + 114 * (pixels[at + 2] ?? 0);
        }
      }
      grey[row * reducedSide + column] = sum / (1000 * (bottom - edge(row)) * (right - edge(column)));
    }
  }
  return grey;
}

/** Cosines of DCT-II for frequencies 1 to 8, `keptSide * reducedSide`, row-major by frequency. */
const cosines = Float64Array.from({ length: keptSide * reducedSide }, (_, at) => {
  const frequency = Math.floor(at / reducedSide) + 1;
  return Math.cos((Math.PI * frequency * (2 * (at % reducedSide) + 1)) / (2 * reducedSide));
});

/** Frequencies (1..8, 1..8) of the DCT of a 32 x 32 image: 64 values, row-major, not normalised. */
function lowFrequencies(grey: Float64Array): Float64Array {
  const acrossRows = new Float64Array(reducedSide * keptSide);
  for (let row = 0; row < reducedSide; row++) {
    for (let u = 0; u < keptSide; u++) {
      let sum = 0;
      for (let x = 0; x < reducedSide; x++) {
        sum += (grey[row * reducedSide + x] ?? 0) * (cosines[u * reducedSide + x] ?? 0);
      }
      acrossRows[row * keptSide + u] = sum;
    }
  }
  const frequencies = new Float64Array(keptSide * keptSide);
  for (let v = 0; v < keptSide; v++) {
    for (let u = 0; u < keptSide; u++) {
      let sum = 0;
      for (let row = 0; row < reducedSide; row++) {
        sum += (acrossRows[row * keptSide + u] ?? 0) * (cosines[v * reducedSide + row] ?? 0);
      }
      // Rounded, so that a flat photo hashes to zeros and not to the sign of rounding errors.
      frequencies[v * keptSide + u] = Math.round(sum * 1000) / 1000;
    }
  }
  return frequencies;
}

/**
 * In how many of their 64 bits two perceptual hashes differ.
 *
 * @throws DandelionError `bad-data` when a hash is not 16 hex digits
 */
export function hammingDistance(a: string, b: string): number {
  const [one, other] = [parseHash(a), parseHash(b)];
  return countBits(one.high ^ other.high) + countBits(one.low ^ other.low);
}

function parseHash(hash: string): { high: number; low: number } {
  if (!/^[0-9a-f]{16}$/i.test(hash)) {
    throw new DandelionError('bad-data', `A perceptual hash has 16 hex digits; "${hash}" does not.`);
  }
  return { high: Number.parseInt(hash.slice(0, 8), 16) | 0, low: Number.parseInt(hash.slice(8), 16) | 0 };
}

/** Set bits of a 32-bit integer; H. S. Warren, "Hacker's Delight" (2nd ed.), section 5-1. */
function countBits(word: number): number {
  let pairs = word - ((word >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * Largest distance at which two photos count as near duplicates.
 *
 * Measured on 300 photos of dandelions and grass, mostly 275 x 183: all 44 850 pairs are 16 bits or more apart,
 * and the closest ones, looked at, are different scenes (300 drawn photos: 14 or more). Re-encoded at JPEG
 * quality 40 or 20, as WebP, or scaled by 0.5, 2 and 6, 1 793 of 1 800 copies are within 6 bits of their
 * original; 15 % brighter or made grey, 594 of 600; with 3 % cut off on each side, 102 of 300 (within 10 bits
 * 236). Distances are even, as half the bits of a hash are set.
 */
export const nearDuplicateDistance = 6;

export interface HashedPhoto {
  sha256: string;
  /** 16 hex digits, as `perceptualHash` gives. */
  perceptualHash: string;
}

/**
 * Groups photos that are near duplicates, directly or through others (connected components). Exact: two
 * hashes at most `d` bits apart agree in at least one of `d + 1` slices, so only photos that share a slice are
 * compared: 100 000 random hashes take half a second.
 *
 * Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing" (2012).
 *
 * @returns group of each photo: the smallest `sha256` among its members
 * @throws DandelionError `bad-data` when a hash is not 16 hex digits
 */
export function groupNearDuplicates(
  photos: readonly HashedPhoto[],
  maxDistance: number = nearDuplicateDistance,
): Map<string, string> {
  const hashes = [...new Set(photos.map((photo) => photo.perceptualHash.toLowerCase()))];
  const roots = joinWithin(hashes.map(parseHash), maxDistance);
  const rootOf = new Map(hashes.map((hash, at) => [hash, roots[at] ?? at]));

  const smallest = new Map<number, string>();
  for (const { sha256, perceptualHash } of photos) {
    const root = rootOf.get(perceptualHash.toLowerCase()) ?? -1;
    const known = smallest.get(root);
    if (known === undefined || sha256 < known) smallest.set(root, sha256);
  }
  return new Map(
    photos.map(({ sha256, perceptualHash }) => {
      const root = rootOf.get(perceptualHash.toLowerCase()) ?? -1;
      return [sha256, smallest.get(root) ?? sha256];
    }),
  );
}

/** Root of each hash's component, where hashes at most `maxDistance` bits apart are joined. */
function joinWithin(hashes: readonly { high: number; low: number }[], maxDistance: number): Int32Array {
  const high = Int32Array.from(hashes, (hash) => hash.high);
  const low = Int32Array.from(hashes, (hash) => hash.low);
  const parents = Int32Array.from(hashes, (_, at) => at);
  const find = (at: number): number => {
    let root = at;
    for (let parent = parents[root] ?? root; parent !== root; parent = parents[root] ?? root) {
      // Path halving keeps the trees flat (Tarjan, van Leeuwen 1984).
      parents[root] = parents[parent] ?? parent;
      root = parent;
    }
    return root;
  };
  for (const bucket of bucketsBySlice(high, low, maxDistance)) {
    for (let i = 1; i < bucket.length; i++) {
      const one = bucket[i] ?? 0;
      const [oneHigh, oneLow] = [high[one] ?? 0, low[one] ?? 0];
      for (let j = 0; j < i; j++) {
        const other = bucket[j] ?? 0;
        const distance = countBits(oneHigh ^ (high[other] ?? 0)) + countBits(oneLow ^ (low[other] ?? 0));
        if (distance <= maxDistance) parents[find(one)] = find(other);
      }
    }
  }
  return Int32Array.from(hashes, (_, at) => find(at));
}

/** Cuts the 64 bits into `maxDistance + 1` slices and yields, slice by slice, the hashes that agree in it. */
function* bucketsBySlice(high: Int32Array, low: Int32Array, maxDistance: number): Generator<number[]> {
  const slices = Math.min(64, maxDistance + 1);
  for (let slice = 0; slice < slices; slice++) {
    const from = Math.floor((64 * slice) / slices);
    const to = Math.floor((64 * (slice + 1)) / slices);
    const [highMask, lowMask] = [maskOf(from, Math.min(to, 32)), maskOf(from - 32, to - 32)];
    const buckets = new Map<string | number, number[]>();
    for (let at = 0; at < high.length; at++) {
      const [highPart, lowPart] = [(high[at] ?? 0) & highMask, (low[at] ?? 0) & lowMask];
      const key = highMask === 0 ? lowPart : lowMask === 0 ? highPart : `${highPart},${lowPart}`;
      const bucket = buckets.get(key);
      if (bucket === undefined) buckets.set(key, [at]);
      else bucket.push(at);
    }
    yield* buckets.values();
  }
}

/** A word whose bits `from` to `to - 1` are set, counted from the lowest; bounds outside 0 to 32 are cut off. */
function maskOf(from: number, to: number): number {
  let mask = 0;
  for (let bit = Math.max(0, from); bit < Math.min(32, to); bit++) mask |= 1 << bit;
  return mask;
}
