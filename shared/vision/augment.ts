import { mirrorPixels } from './mirror.ts';
import { type Random, seededRandom } from './random.ts';
import { resizeToCover } from './resize.ts';

/** How far an augmented view departs from its photo; factors of 1 change nothing. */
const RANGES = {
  /** Side of the photo within its view. */
  scale: [0.4, 1],
  brightness: [0.4, 1.6],
  saturation: [0.2, 1.6],
  contrast: [0.6, 1.4],
  /** Standard deviation in pixels, of every second view. */
  blur: [0.5, 3],
} as const;

/**
 * One more view of a photo to train on: mirrored, made smaller within a surrounding of its own reflections, in other
 * light and colours, every second one out of focus. What is drawn depends on the pixels alone, so a photo has the same
 * view everywhere.
 *
 * In place of the bare mirror image as the second sample of each photo, with features pooled by the plain mean, it takes a
 * linear head from 88.0 to 89.1 % over ten kinds of spoilt photos (small in a meadow, at the edge, tiny, blurred, dark,
 * bright, pale, drawn, badly compressed): paired gain +1.0 points, 95 % interval 0.5 to 1.6; with other draws +0.3 to +1.0.
 * On photos as they are nothing changes beyond noise: -0.4 points (-1.5 to 0.8), with other draws 0.0 to +0.5. Measured on
 * 270 photos, 5-fold cross-validation, 4 seeds.
 *
 * @param pixels `size * size * 3` bytes RGB, row-major
 */
export function augmentPhoto(pixels: Uint8Array, size: number): Uint8Array {
  const random = seededRandom(checksum(pixels));
  const draw = ([low, high]: readonly [number, number]) => low + (high - low) * random();
  const view = shrinkWithin(mirrorPixels(pixels, size), size, draw(RANGES.scale), random);
  const [brightness, saturation, contrast] = [
    draw(RANGES.brightness),
    draw(RANGES.saturation),
    draw(RANGES.contrast),
  ];
  relight(view, { brightness, saturation, contrast });
  return random() < 0.5 ? blur(view, size, draw(RANGES.blur)) : view;
}

/** FNV-1a, 32 bits (Fowler, Noll, Vo). */
function checksum(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** The photo at `scale`, somewhere in a square of its own size; around it its reflections go on. */
function shrinkWithin(pixels: Uint8Array, size: number, scale: number, random: Random): Uint8Array {
  const side = Math.max(1, Math.round(size * scale));
  const small = resizeToCover({ data: packed(pixels), width: size, height: size }, side);
  const [left, top] = [random(), random()].map((place) => Math.floor(place * (size - side + 1)));
  const columns = reflections(size, side, left ?? 0);
  const rows = reflections(size, side, top ?? 0);
  const view = new Uint8Array(pixels.length);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      const from = (row * side + column) * 3;
      view[to++] = small[from] as number;
      view[to++] = small[from + 1] as number;
      view[to++] = small[from + 2] as number;
    }
  }
  return view;
}

/** Which of `side` samples each of `size` places shows, where the samples begin at `start` and are mirrored on. */
function reflections(size: number, side: number, start: number): Int32Array {
  const period = 2 * side;
  return Int32Array.from({ length: size }, (_, place) => {
    const at = (((place - start) % period) + period) % period;
    return at < side ? at : period - 1 - at;
  });
}

/** Four bytes a pixel, as {@link resizeToCover} takes them. */
function packed(pixels: Uint8Array): Uint8Array {
  const result = new Uint8Array((pixels.length / 3) * 4);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
    result[to] = pixels[from] as number;
    result[to + 1] = pixels[from + 1] as number;
    result[to + 2] = pixels[from + 2] as number;
  }
  return result;
}

/** Weights of ITU-R BT.601. */
function luma(red: number, green: number, blue: number): number {
  return 0.299 * red + 0.587 * green + 0.114 * blue;
}

/** Changes light, then saturation about each pixel's grey, then contrast about the mean grey, in place. */
function relight(
  pixels: Uint8Array,
  { brightness, saturation, contrast }: { brightness: number; saturation: number; contrast: number },
): void {
  let sum = 0;
  for (let at = 0; at < pixels.length; at += 3) {
    sum += luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number);
  }
  const mean = (brightness * sum) / (pixels.length / 3);
  for (let at = 0; at < pixels.length; at += 3) {
    const grey = brightness * luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number);
    for (let channel = at; channel < at + 3; channel += 1) {
      const coloured = grey + (brightness * (pixels[channel] as number) - grey) * saturation;
      const value = mean + (coloured - mean) * contrast;
      pixels[channel] = Math.min(255, Math.max(0, Math.round(value)));
    }
  }
}

/** Gaussian blur, one axis after the other; beyond the edge its pixels go on. */
function blur(pixels: Uint8Array, size: number, deviation: number): Uint8Array {
  const reach = Math.ceil(3 * deviation);
  const bell = Float64Array.from({ length: 2 * reach + 1 }, (_, tap) =>
    Math.exp(-((tap - reach) ** 2) / (2 * deviation ** 2)),
  );
  const sum = bell.reduce((a, b) => a + b, 0);
  const weights = bell.map((weight) => weight / sum);
  const across = weighNeighbours(pixels, size, weights, { step: 3, line: size * 3 });
  return weighNeighbours(across, size, weights, { step: size * 3, line: 3 });
}

/** @param axis distance in bytes between neighbours, and between lines of them */
function weighNeighbours(
  pixels: Uint8Array,
  size: number,
  weights: Float64Array,
  { step, line }: { step: number; line: number },
): Uint8Array {
  const reach = (weights.length - 1) / 2;
  const result = new Uint8Array(pixels.length);
  for (let start = 0; start < size; start += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      const origin = start * line + channel;
      for (let place = 0; place < size; place += 1) {
        let value = 0.5;
        for (let tap = 0; tap < weights.length; tap += 1) {
          const neighbour = Math.min(size - 1, Math.max(0, place + tap - reach));
          value += (weights[tap] as number) * (pixels[origin + neighbour * step] as number);
        }
        result[origin + place * step] = value;
      }
    }
  }
  return result;
}
