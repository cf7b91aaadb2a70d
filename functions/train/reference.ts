import type { EventData } from '../../shared/events.ts';
import type { Database } from '../../shared/stores/database.ts';
import type { DriftReference } from '../../shared/stores/drift-reference.ts';
import { type FeatureMatrix, readStatistics } from '../../shared/stores/features.ts';
import { FAMILIARITY } from '../../shared/vision/drift.ts';
import { SKETCH, sketchFeatures } from '../../shared/vision/sketch.ts';

/** Photos of a split with what the model says of each, not having been trained on it. */
export interface JudgedSplit {
  matrix: FeatureMatrix;
  /** Row-major [photos, classes]. */
  probabilities: Float32Array;
  /** How like the photos of the nearest class each is. */
  familiarity: Float32Array;
}

/** More would make no test of drift sharper that a window of some hundred photos does not. */
const MOST_PHOTOS = 2000;

/**
 * What photos and answers are like without drift: the training split with its held-out answers, and the validation split.
 * One photo speaks for its near-duplicates, since tests of drift take photos for independent; of too many a sample is
 * taken by their digests.
 */
export async function describeReference(
  db: Database,
  { model, dataset, extractor }: EventData<'dev.dandelion.features.stored.v1'>,
  classes: readonly string[],
  splits: readonly JudgedSplit[],
): Promise<Omit<DriftReference, 'version'>> {
  const photos = splits
    .flatMap(oneOfEachGroup)
    .sort((one, other) => (one.sha256 < other.sha256 ? -1 : 1))
    .slice(0, MOST_PHOTOS);
  const digests = photos.map(({ sha256 }) => sha256);
  const statistics = await readStatistics(db, model, extractor.id, digests);
  const measured = photos.filter(({ sha256 }) => statistics.has(sha256));
  const names = Object.keys(statistics.values().next().value ?? {});
  const answers = measured.map(({ probabilities }) => {
    const confidence = Math.max(...probabilities);
    return { label: classes[probabilities.indexOf(confidence)] ?? '', confidence };
  });
  return {
    schemaVersion: 1,
    dataset: dataset.version,
    // In full: rounded, an aspect ratio of 4 : 3 would differ from the one that predict measures, in every photo.
    statistics: {
      ...Object.fromEntries(
        names.map((name) => [name, measured.map(({ sha256 }) => statistics.get(sha256)?.[name] ?? 0)]),
      ),
      [FAMILIARITY]: measured.map(({ familiarity }) => familiarity),
    },
    labels: answers.map(({ label }) => label),
    confidences: answers.map(({ confidence }) => confidence),
    sketches: {
      id: SKETCH.id,
      rows: measured.map(({ features }) => Array.from(sketchFeatures(features), rounded)),
    },
  };
}

function oneOfEachGroup({ matrix, probabilities, familiarity }: JudgedSplit) {
  const { sha256, groups, features, dimension } = matrix;
  const classes = probabilities.length / Math.max(1, sha256.length);
  const seen = new Set<string>();
  return sha256.flatMap((digest, row) => {
    const group = groups[row] ?? digest;
    if (seen.has(group)) return [];
    seen.add(group);
    return [
      {
        sha256: digest,
        features: features.subarray(row * dimension, (row + 1) * dimension),
        probabilities: probabilities.subarray(row * classes, (row + 1) * classes),
        familiarity: familiarity[row] ?? 0,
      },
    ];
  });
}

/** Six digits: a sum of features needs no more. */
function rounded(value: number): number {
  return Number(value.toPrecision(6));
}
