import { DandelionError } from '../errors.ts';

/** What tells photos like those of the training from photos of something else. */
export interface Familiarity {
  /** Mean direction of each class, of length 1; row-major [classes, dimension]. */
  directions: Float32Array;
  /** Below this cosine a photo is of none of the classes. */
  threshold: number;
  /** Share of photos of the classes that are to stay above the threshold. */
  acceptance: number;
  /** Of each photo, held against directions that it had no part in: what photos of the classes are to be expected like. */
  heldOut: { training: Float32Array; validation: Float32Array };
}

/** Photos of one split. */
export interface LabelledFeatures {
  /** Row-major [n, dimension]. */
  features: Float32Array;
  /** Index of the class, [n]. */
  labels: Int32Array;
  /** Near-duplicate group of each photo. */
  groups?: readonly string[] | undefined;
}

interface Shape {
  classes: number;
  dimension: number;
}

/**
 * Learns what familiar photos look like: the cosine between a photo's features and the mean direction of the class
 * it is nearest to (the prototypes of Ming et al. 2023, https://arxiv.org/abs/2203.04450, on fixed features). On 300
 * photos of dandelions and grass against 153 others (people, animals, things, text, textures) the area under the ROC
 * curve is 0.996 in 5-fold cross-validation; the distance to the tenth neighbour (Sun et al. 2022) gives 0.997 and has to
 * carry the training photos along, Mahalanobis distances 0.97, the largest probability 0.89.
 *
 * The threshold is the quantile of photos that had no part in the direction they are held against: the training
 * photos, each without its near-duplicate group, and the validation photos.
 *
 * @param acceptance share of the classes' own photos that stays known, above 0 and below 1
 */
export function learnFamiliarity(
  training: LabelledFeatures,
  validation: LabelledFeatures,
  shape: Shape,
  acceptance: number,
): Familiarity {
  const sums = classSums(training, shape);
  const directions = unitRows(sums, shape.dimension);
  const heldOut = {
    training: leftOut(training, sums, shape),
    validation: familiarityOf(directions, validation.features, validation.labels.length),
  };
  const cosines = [...heldOut.training, ...heldOut.validation].sort((a, b) => a - b);
  const threshold = cosines[Math.floor((1 - acceptance) * cosines.length)] ?? -1;
  return { directions, threshold, acceptance, heldOut };
}

/**
 * Cosine of each photo's features with the mean direction of the nearest class.
 *
 * @param directions row-major [classes, dimension], rows of length 1
 * @param features row-major [n, dimension]
 * @returns [n], -1 to 1; 0 for features that are all 0
 * @throws DandelionError `internal` when the lengths do not fit
 */
export function familiarityOf(directions: Float32Array, features: Float32Array, n: number): Float32Array {
  const dimension = n === 0 ? 0 : features.length / n;
  if (n > 0 && (!Number.isInteger(dimension) || directions.length % dimension !== 0)) {
    throw new DandelionError(
      'internal',
      `${directions.length} numbers of class directions do not fit ${features.length} of ${n} photos.`,
    );
  }
  return Float32Array.from({ length: n }, (_, photo) =>
    nearestCosine(directions, features.subarray(photo * dimension, (photo + 1) * dimension)),
  );
}

function nearestCosine(directions: Float32Array, photo: Float32Array): number {
  const norm = lengthOf(photo);
  if (norm === 0) return 0;
  let nearest = -1;
  for (let start = 0; start < directions.length; start += photo.length) {
    let product = 0;
    for (let i = 0; i < photo.length; i += 1) product += (photo[i] ?? 0) * (directions[start + i] ?? 0);
    nearest = Math.max(nearest, product / norm);
  }
  return nearest;
}

/** Sum of the photos' directions, a row a class. */
function classSums({ features, labels }: LabelledFeatures, { classes, dimension }: Shape): Float32Array {
  const sums = new Float32Array(classes * dimension);
  for (const [photo, label] of labels.entries()) {
    addDirection(sums, label * dimension, features.subarray(photo * dimension, (photo + 1) * dimension), 1);
  }
  return sums;
}

function addDirection(sums: Float32Array, start: number, photo: Float32Array, sign: number): void {
  const norm = lengthOf(photo) || 1;
  for (const [i, value] of photo.entries()) {
    sums[start + i] = (sums[start + i] ?? 0) + (sign * value) / norm;
  }
}

/** Cosines of the training photos with directions that their own group had no part in. */
function leftOut(
  { features, labels, groups }: LabelledFeatures,
  sums: Float32Array,
  { dimension }: Shape,
): Float32Array {
  const cosines = new Float32Array(labels.length);
  const byGroup = Map.groupBy(labels.keys(), (photo) => groups?.[photo] ?? photo);
  for (const members of byGroup.values()) {
    const without = sums.slice();
    const photos = members.map((photo) => features.subarray(photo * dimension, (photo + 1) * dimension));
    for (const [i, member] of members.entries()) {
      addDirection(without, (labels[member] ?? 0) * dimension, photos[i] ?? new Float32Array(), -1);
    }
    const directions = unitRows(without, dimension);
    for (const [i, member] of members.entries()) {
      cosines[member] = nearestCosine(directions, photos[i] ?? new Float32Array());
    }
  }
  return cosines;
}

function unitRows(rows: Float32Array, dimension: number): Float32Array {
  const units = rows.slice();
  for (let start = 0; start < units.length; start += dimension) {
    const row = units.subarray(start, start + dimension);
    const norm = lengthOf(row) || 1;
    for (const [i, value] of row.entries()) row[i] = value / norm;
  }
  return units;
}

function lengthOf(values: Float32Array): number {
  let squares = 0;
  for (const value of values) squares += value * value;
  return Math.sqrt(squares);
}
