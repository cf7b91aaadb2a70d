import sharp, { type Sharp } from 'sharp';
import { normal, seededRandom } from './random.ts';

/** Standard deviation of the noise, in steps of 0 to 255. */
const NOISE_DEVIATION = 25;

/** A photo of `side` x `side` pixels in its raw form; ends as one that {@link corruptPhoto} brings to its size again. */
type Corrupt = (photo: Sharp, side: number) => Sharp | Promise<Sharp>;

const corrupt = {
  /** At two fifths of its size, its reflections around it. */
  small(photo, side) {
    const inner = Math.round(side * 0.4);
    const before = Math.floor((side - inner) / 2);
    const after = side - inner - before;
    const sides = { top: before, left: before, bottom: after, right: after };
    return photo.resize(inner, inner).extend({ ...sides, extendWith: 'mirror' });
  },
  blurred: (photo) => photo.blur(3),
  dark: (photo) => photo.linear(0.35, 0),
  bright: (photo) => photo.linear(1.8, 0),
  grey: (photo) => photo.grayscale(),
  /** The top left, three fifths of each side. */
  cropped(photo, side) {
    const part = Math.round(side * 0.6);
    return photo.extract({ left: 0, top: 0, width: part, height: part });
  },
  /** As if it had 64 pixels a side. */
  coarse: async (photo) => again(photo.resize(64, 64)),
  compressed: async (photo) => sharp(await photo.jpeg({ quality: 8 }).toBuffer()),
  /** In twelve colours. */
  posterised: async (photo) => sharp(await photo.png({ palette: true, colours: 12, dither: 0 }).toBuffer()),
  turned: (photo) => photo.rotate(90),
  /** A quarter of it behind something grey. */
  covered(photo, side) {
    const half = Math.round(side / 2);
    const cover = { width: half, height: half, channels: 3 as const, background: '#808080' };
    return photo.composite([{ input: { create: cover }, left: 0, top: 0 }]);
  },
  async noisy(photo) {
    const { data, info } = await photo.raw().toBuffer({ resolveWithObject: true });
    const random = seededRandom(1);
    const noisy = Uint8ClampedArray.from(data, (value) => value + NOISE_DEVIATION * normal(random));
    return sharp(Buffer.from(noisy.buffer), { raw: info });
  },
} satisfies Record<string, Corrupt>;

export type Corruption = keyof typeof corrupt;

/** What can befall a photo on its way to the model; training shows it the likes of the first five (see augment.ts). */
export const corruptions = Object.keys(corrupt) as Corruption[];

/**
 * A photo as a bad camera, bad light or a careless upload would have given it, after the idea of ImageNet-C (Hendrycks and
 * Dietterich, 2019, https://arxiv.org/abs/1903.12261): what a classifier says of it tells how it will do on photos unlike
 * those it was shown. The same photo and corruption give the same pixels.
 *
 * @param pixels `side * side * 3` bytes RGB, row-major
 * @returns as many
 */
export async function corruptPhoto(
  pixels: Uint8Array,
  side: number,
  corruption: Corruption,
): Promise<Uint8Array> {
  const photo = sharp(pixels, { raw: { width: side, height: side, channels: 3 } });
  const changed = await again(await corrupt[corruption](photo, side));
  return changed.resize(side, side).toColourspace('srgb').removeAlpha().raw().toBuffer();
}

/** What was done so far, done: sharp orders the operations of one chain by itself. */
async function again(photo: Sharp): Promise<Sharp> {
  const { data, info } = await photo.raw().toBuffer({ resolveWithObject: true });
  return sharp(data, { raw: info });
}
