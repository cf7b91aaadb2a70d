import type { DecodedPhoto } from './decode.ts';

export const qualityFlags = ['too-small', 'blank', 'too-dark', 'too-bright', 'blurred'] as const;
export type QualityFlag = (typeof qualityFlags)[number];

/** Plain numbers of the decoded square: what drift is measured on, and what the flags are judged by. */
export interface ImageStatistics {
  /** Mean luma (ITU-R BT.601), 0 to 1. */
  brightness: number;
  /** Standard deviation of luma, 0 to 0.5. */
  contrast: number;
  /** Mean difference of the largest and the smallest channel, 0 to 1 (chroma of the HSV model). */
  saturation: number;
  /** Variance of the Laplacian of luma, luma in 0 to 255. */
  sharpness: number;
  /** Mean of each channel, 0 to 1. */
  meanRed: number;
  meanGreen: number;
  meanBlue: number;
  /** Width over height of the file. */
  aspectRatio: number;
  /** Shorter side of the file in pixels. */
  shortSide: number;
}

export interface PhotoAssessment {
  flags: QualityFlag[];
  statistics: ImageStatistics;
}

/**
 * Limits of the flags, set so that none of 300 photos of dandelions and grass is flagged: seeds on white
 * (brightness 0.965), a seed head on black (0.038), a drawing in two colours (contrast 0.039), a soft portrait of
 * seed heads (sharpness 17.8), 70 pixels on the shorter side. Blurred by a Gaussian of 3 pixels, 297 of the 300
 * fall below the limit of sharpness. A flag is advice: it is stored and shown, no photo is refused for it.
 */
const limits = {
  /** Pixels; below, the 224-pixel square is mostly invented by enlarging. */
  shortSide: 64,
  contrast: 0.02,
  darkest: 0.03,
  brightest: 0.975,
  sharpness: 15,
} as const;

/**
 * Measures a decoded photo and flags what a classifier cannot learn from or judge well.
 *
 * Sharpness is the variance of the Laplacian: J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield
 * microscopy: a comparative study" (ICPR 2000). It depends on the size of the square, so the limit holds for
 * the default of 224 pixels.
 */
export function assessPhoto(photo: DecodedPhoto): PhotoAssessment {
  const statistics = measureStatistics(photo);
  return { flags: flagsOf(statistics), statistics };
}

function flagsOf({ shortSide, contrast, brightness, sharpness }: ImageStatistics): QualityFlag[] {
  const flags: QualityFlag[] = [];
  if (shortSide < limits.shortSide) flags.push('too-small');
  if (brightness < limits.darkest) flags.push('too-dark');
  if (brightness > limits.brightest) flags.push('too-bright');
  // A blank photo is not sharp either; one reason is enough.
  if (contrast < limits.contrast) flags.push('blank');
  else if (sharpness < limits.sharpness) flags.push('blurred');
  return flags;
}

/**
 * Measures a decoded photo.
 *
 * @param stride 1 looks at every pixel; `n` at every n-th of every n-th row, for an estimate at 1/n² of the cost
 */
export function measureStatistics(
  { pixels, size, width, height }: Pick<DecodedPhoto, 'pixels' | 'size' | 'width' | 'height'>,
  stride = 1,
): ImageStatistics {
  const sums = { red: 0, green: 0, blue: 0, chroma: 0, luma: 0, lumaSquared: 0 };
  let count = 0;
  for (let y = 0; y < size; y += stride) {
    for (let x = 0; x < size; x += stride) {
      const at = (y * size + x) * 3;
      const red = pixels[at] ?? 0;
      const green = pixels[at + 1] ?? 0;
      const blue = pixels[at + 2] ?? 0;
      const value = luma(red, green, blue);
      count += 1;
      sums.red += red;
      sums.green += green;
      sums.blue += blue;
      sums.chroma += Math.max(red, green, blue) - Math.min(red, green, blue);
      sums.luma += value;
      sums.lumaSquared += value * value;
    }
  }
  const mean = (sum: number) => sum / count;
  const variance = Math.max(0, mean(sums.lumaSquared) - mean(sums.luma) ** 2);
  return {
    brightness: mean(sums.luma) / 255,
    contrast: Math.sqrt(variance) / 255,
    saturation: mean(sums.chroma) / 255,
    sharpness: laplacianVariance(pixels, size, stride),
    meanRed: mean(sums.red) / 255,
    meanGreen: mean(sums.green) / 255,
    meanBlue: mean(sums.blue) / 255,
    aspectRatio: width / height,
    shortSide: Math.min(width, height),
  };
}

/** ITU-R BT.601, 0 to 255. */
function luma(red: number, green: number, blue: number): number {
  return (299 * red + 587 * green + 114 * blue) / 1000;
}

/** Variance of the four-neighbour Laplacian over the inside of a square image; 0 where there is no inside. */
function laplacianVariance(pixels: Uint8Array, size: number, stride: number): number {
  const lumaAt = (at: number) => luma(pixels[at] ?? 0, pixels[at + 1] ?? 0, pixels[at + 2] ?? 0);
  const row = size * 3;
  let count = 0;
  let sum = 0;
  let squares = 0;
  for (let y = 1; y < size - 1; y += stride) {
    for (let x = 1; x < size - 1; x += stride) {
      const at = y * row + x * 3;
      const around = lumaAt(at - row) + lumaAt(at + row) + lumaAt(at - 3) + lumaAt(at + 3);
      const value = around - 4 * lumaAt(at);
      count += 1;
      sum += value;
      squares += value * value;
    }
  }
  return count === 0 ? 0 : squares / count - (sum / count) ** 2;
}
