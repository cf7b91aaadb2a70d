import { encodePng } from './png.ts';

/** Where a photo speaks for a class. */
export interface Heatmap {
  /** Places along a side of the square that the model looked at. */
  side: number;
  /** Row-major [side, side], 0 to 1: how much a place speaks for the class rather than for its strongest rival. */
  values: Float32Array;
}

/** Along a side; whoever shows the overlay stretches it over the photo, smoothly as browsers do. */
const PIXELS_A_PLACE = 4;
/** The strongest place still lets the photo through. */
const OPACITY = 0.7;

/**
 * A class-activation map (Zhou et al. 2016, https://arxiv.org/abs/1512.04150): the head's weights applied to each place
 * of the last feature map. Taken against the strongest rival, for only the difference of two logits decides, and what
 * speaks against the class is left out.
 *
 * @param heat row-major [classes, side, side], what each place adds to each class
 * @param rows probabilities or logits in the order of the classes, [classes]
 * @param label index of the class to explain
 */
export function classHeatmap(heat: Float32Array, scores: ArrayLike<number>, label: number): Heatmap {
  const places = heat.length / scores.length;
  const rivals = Array.from(scores, (score, index) => ({ score, index })).filter(
    ({ index }) => index !== label,
  );
  const rival = rivals.reduce((best, other) => (other.score > best.score ? other : best)).index;
  const values = Float32Array.from({ length: places }, (_, place) =>
    Math.max(0, (heat[label * places + place] ?? 0) - (heat[rival * places + place] ?? 0)),
  );
  const highest = values.reduce((a, b) => Math.max(a, b), 0);
  return { side: Math.sqrt(places), values: highest === 0 ? values : values.map((value) => value / highest) };
}

/**
 * The heatmap as a picture to lay over the square of the photo that the model looked at: the hotter a place, the redder
 * and the less transparent.
 *
 * @returns a PNG file with transparency
 */
export function heatmapOverlay(heatmap: Heatmap): Buffer {
  const side = heatmap.side * PIXELS_A_PLACE;
  const pixels = new Uint8Array(side * side * 4);
  for (const [pixel, value] of betweenPlaces(heatmap, side).entries()) {
    pixels.set([255, Math.round(220 * (1 - value)), 0, Math.round(255 * OPACITY * value)], pixel * 4);
  }
  return encodePng(pixels, side);
}

/** The values on a finer grid, linear between the middles of the places. */
function betweenPlaces({ side: places, values }: Heatmap, side: number): Float32Array {
  const taps = Array.from({ length: side }, (_, pixel) => {
    const at = Math.min(places - 1, Math.max(0, ((pixel + 0.5) * places) / side - 0.5));
    const low = Math.floor(at);
    return { low, high: Math.min(places - 1, low + 1), share: at - low };
  });
  const blend = (a = 0, b = 0, share: number) => a + (b - a) * share;
  const result = new Float32Array(side * side);
  for (const [y, row] of taps.entries()) {
    const [upper, lower] = [row.low * places, row.high * places];
    for (const [x, { low, high, share }] of taps.entries()) {
      const above = blend(values[upper + low], values[upper + high], share);
      const below = blend(values[lower + low], values[lower + high], share);
      result[y * side + x] = blend(above, below, row.share);
    }
  }
  return result;
}
