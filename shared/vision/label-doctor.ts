import type { Samples } from './cross-validation.ts';
import { hammingDistance } from './similarity.ts';

/** A photo whose label the model, not trained on it, does not believe. */
export interface Suspect {
  /** Index of the photo. */
  photo: number;
  label: string;
  /** The class that is most probable instead. */
  suggested: string;
  /** Mean held-out probabilities of both. */
  labelProbability: number;
  suggestedProbability: number;
}

/** Two photos that look the same under different labels. */
export interface Contradiction {
  photos: [number, number];
  labels: [string, string];
  /** Bits in which the perceptual hashes differ, of 64. */
  distance: number;
}

/**
 * Ranks photos by how strongly held-out answers contradict their label, the strongest first: the normalised margin of
 * confident learning (Northcutt, Jiang and Chuang, 2021, section 3).
 *
 * @param answers held-out probabilities by repeat, row-major [photos, classes]; their mean is what counts
 */
export function rankSuspects(
  answers: readonly Float32Array[],
  { labels, classes }: Pick<Samples, 'labels' | 'classes'>,
): Suspect[] {
  const width = classes.length;
  const suspects = [...labels].flatMap((label, photo) => {
    const mean = classes.map(
      (_, c) => answers.reduce((sum, own) => sum + (own[photo * width + c] ?? 0), 0) / answers.length,
    );
    const best = mean.indexOf(Math.max(...mean));
    if (best === label) return [];
    return {
      photo,
      label: classes[label] ?? '',
      suggested: classes[best] ?? '',
      labelProbability: mean[label] ?? 0,
      suggestedProbability: mean[best] ?? 0,
    };
  });
  const margin = (suspect: Suspect) => suspect.suggestedProbability - suspect.labelProbability;
  return suspects.sort((a, b) => margin(b) - margin(a));
}

/**
 * Pairs of near-duplicates that carry different labels, the most alike first.
 *
 * @param hashes perceptual hash of each photo
 */
export function findContradictions(
  hashes: readonly string[],
  { labels, classes, groups }: Samples,
): Contradiction[] {
  const found: Contradiction[] = [];
  for (const members of Map.groupBy(labels.keys(), (photo) => groups[photo] ?? '').values()) {
    for (const [place, first] of members.entries()) {
      for (const second of members.slice(place + 1)) {
        const [one = 0, other = 0] = [labels[first], labels[second]];
        if (one === other) continue;
        found.push({
          photos: [first, second],
          labels: [classes[one] ?? '', classes[other] ?? ''],
          distance: hammingDistance(hashes[first] ?? '', hashes[second] ?? ''),
        });
      }
    }
  }
  return found.sort((a, b) => a.distance - b.distance);
}
