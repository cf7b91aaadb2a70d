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
  // Whole numbers in variables of their own: predict does this for every photo, beside an engine that wants the cores.
  let sumRed = 0;
  let sumGreen = 0;
  let sumBlue = 0;
  let sumChroma = 0;
  let sumSquares = 0;
  let count = 0;
  for (let y = 0; y < size; y += stride) {
    const end = (y + 1) * size * 3;
    for (let at = y * size * 3; at < end; at += 3 * stride) {
      const red = pixels[at] as number;
      const green = pixels[at + 1] as number;
      const blue = pixels[at + 2] as number;
      const value = milliluma(red, green, blue);
      const most = red > green ? (red > blue ? red : blue) : green > blue ? green : blue;
      const least = red < green ? (red < blue ? red : blue) : green < blue ? green : blue;
      count += 1;
      sumRed += red;
      sumGreen += green;
      sumBlue += blue;
      sumChroma += most - least;
      sumSquares += value * value;
    }
  }
  const mean = (sum: number) => sum / count;
  const meanLuma = milliluma(mean(sumRed), mean(sumGreen), mean(sumBlue));
  const variance = Math.max(0, mean(sumSquares) - meanLuma ** 2);
  return {
    brightness: meanLuma / 255_000,
    contrast: Math.sqrt(variance) / 255_000,
    saturation: mean(sumChroma) / 255,
    sharpness: laplacianVariance(pixels, size, stride),
    meanRed: mean(sumRed) / 255,
    meanGreen: mean(sumGreen) / 255,
    meanBlue: mean(sumBlue) / 255,
    aspectRatio: width / height,
    shortSide: Math.min(width, height),
  };
}

/** ITU-R BT.601, in thousandths of what the channels are in: whole numbers stay whole. */
function milliluma(red: number, green: number, blue: number): number {
  return 299 * red + 587 * green + 114 * blue;
}

/** Variance of the four-neighbour Laplacian over the inside of a square image; 0 where there is no inside. */
function laplacianVariance(pixels: Uint8Array, size: number, stride: number): number {
  const row = size * 3;
  // Luma is linear, so the Laplacian of each channel may be taken first: whole numbers, and one sum instead of five.
  const laplacianAt = (at: number) =>
    (pixels[at - row] as number) +
    (pixels[at + row] as number) +
    (pixels[at - 3] as number) +
    (pixels[at + 3] as number) -
    4 * (pixels[at] as number);
  let count = 0;
  let sum = 0;
  let squares = 0;
  for (let y = 1; y < size - 1; y += stride) {
    const end = (y * size + size - 1) * 3;
    for (let at = y * row + 3; at < end; at += 3 * stride) {
      const value = milliluma(laplacianAt(at), laplacianAt(at + 1), laplacianAt(at + 2));
      count += 1;
      sum += value;
      squares += value * value;
    }
  }
  return count === 0 ? 0 : (squares / count - (sum / count) ** 2) / 1e6;
}
