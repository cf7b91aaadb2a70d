import { domainClassifier } from './domain-classifier.ts';
import { seededRandom } from './random.ts';
import {
  type AnswerCount,
  kolmogorovSmirnov,
  populationStabilityIndex,
  rightLessOften,
  sameMix,
  type TwoSampleResult,
} from './two-sample.ts';

/** A photo as far as drift goes: what it measures, and what the model said of it. */
export interface ObservedPhoto {
  /** Image statistics by name. */
  statistics: Readonly<Record<string, number>>;
  /** What the model answered. */
  label: string;
  /** Probability of that answer, 0 to 1. */
  confidence: number;
  /** Of its features; null where none was made, or in another way. */
  sketch: readonly number[] | null;
}

type PhotoSample = readonly ObservedPhoto[];

/** The statistic that predict adds to those of a photo: how like the photos of the nearest class its features are. */
export const FAMILIARITY = 'familiarity';

export type DriftKind = 'input' | 'embedding' | 'prediction' | 'confidence' | 'performance';

/** What one test found. */
export interface DriftFinding {
  kind: DriftKind;
  /** The statistic tested, or the kind once more. */
  feature: string;
  test: 'kolmogorov-smirnov' | 'domain-classifier' | 'chi-squared' | 'fisher-exact';
  pValue: number;
  /** Size of the difference as the test measures it, and the least that counts. */
  effect: number;
  leastEffect: number;
  /** Unlikely enough beside all other tests, and large enough to matter. */
  drifted: boolean;
  /** Population stability index of a statistic or of the confidence. */
  psi?: number;
  /** Medians, shares of the labels, or of right answers. */
  reference: number | Record<string, number>;
  window: number | Record<string, number>;
}

export interface DriftReport {
  drifted: boolean;
  /** Chance of an alarm when nothing has changed. */
  level: number;
  photos: { reference: number; window: number };
  /** The clearest first. */
  findings: DriftFinding[];
}

/**
 * Differences below these are of no consequence, however many photos prove them: a tenth of the photos on the other
 * side of some value, a tenth that changed class, a classifier that is hardly better than chance, a twentieth more wrong
 * answers.
 */
const LEAST_EFFECT = {
  'kolmogorov-smirnov': 0.1,
  'chi-squared': 0.1,
  'domain-classifier': 0.6,
  'fisher-exact': 0.05,
} as const;

/** Photos with a sketch that each side needs for the domain classifier. */
const LEAST_SKETCHES = 40;

/** How often a model was right: on its test split, and since it serves by what people said and others reviewed. */
export interface Performance {
  tested: AnswerCount;
  reviewed: AnswerCount;
}

/**
 * Holds a window of photos that were answered against the reference of the model that answered them: each image
 * statistic, the familiarity and the sketch of the features, the mix of answers, the confidence and, where it is known, how often the model
 * is right. All tests share one level by Holm's method (S. Holm, "A simple sequentially rejective multiple test procedure", 1979), which holds however the tests
 * depend on each other: when nothing has changed, the chance that any of them speaks up is at most `level`.
 *
 * @param options.level see {@link levelOfCheck}
 * @param options.seed deals photos to the halves of the domain classifier
 */
export function detectDrift(
  reference: PhotoSample,
  window: PhotoSample,
  { level, seed, performance }: { level: number; seed: number; performance?: Performance | undefined },
): DriftReport {
  const found = [
    ...statisticsOf(reference, window).map((name) =>
      compareNumbers(kindOf(name), name, valuesOf(reference, name), valuesOf(window, name)),
    ),
    ...compareSketches(reference, window, seed),
    compareMix(reference, window),
    compareNumbers(
      'confidence',
      'confidence',
      reference.map(({ confidence }) => confidence),
      window.map(({ confidence }) => confidence),
    ),
    ...(performance === undefined ? [] : [comparePerformance(performance)]),
  ];
  const findings = byHolm(found, level);
  return {
    drifted: findings.some(({ drifted }) => drifted),
    level,
    photos: { reference: reference.length, window: window.length },
    findings,
  };
}

/**
 * The level of the k-th check of one model: the budget is spent as 1/2, 1/6, 1/12 … of it, which sum up to all of it.
 * So the chance of any false alarm while a model serves, however often it is looked at, is at most the budget.
 *
 * Source: alpha spending, K. K. G. Lan and D. L. DeMets, "Discrete sequential boundaries for clinical trials" (1983),
 * over a number of looks without end.
 *
 * @param check from 1
 */
export function levelOfCheck(budget: number, check: number): number {
  return budget / (check * (check + 1));
}

type Found = Omit<DriftFinding, 'drifted'>;

/** Names that both sides measured. */
function statisticsOf(reference: PhotoSample, window: PhotoSample): string[] {
  const names = (sample: PhotoSample) => new Set(Object.keys(sample[0]?.statistics ?? {}));
  const measured = names(window);
  return [...names(reference)].filter((name) => measured.has(name)).sort();
}

/** Familiarity is one of the features, not of the photo: strange things drift here first, however well lit. */
function kindOf(statistic: string): DriftKind {
  return statistic === FAMILIARITY ? 'embedding' : 'input';
}

function valuesOf(photos: PhotoSample, name: string): number[] {
  return photos.flatMap(({ statistics }) => statistics[name] ?? []);
}

function compareNumbers(kind: DriftKind, feature: string, reference: number[], window: number[]): Found {
  const test = 'kolmogorov-smirnov';
  return {
    ...{ kind, feature, test, ...kolmogorovSmirnov(reference, window), leastEffect: LEAST_EFFECT[test] },
    psi: populationStabilityIndex(reference, window),
    ...{ reference: medianOf(reference), window: medianOf(window) },
  };
}

function compareMix(reference: PhotoSample, window: PhotoSample): Found {
  const labels = (photos: PhotoSample) => photos.map(({ label }) => label);
  const [before, now] = [labels(reference), labels(window)];
  const test = 'chi-squared';
  return {
    ...{
      kind: 'prediction',
      feature: 'label',
      test,
      ...sameMix(before, now),
      leastEffect: LEAST_EFFECT[test],
    },
    ...{ reference: sharesOf(before), window: sharesOf(now) },
  };
}

function compareSketches(reference: PhotoSample, window: PhotoSample, seed: number): Found[] {
  const sketches = (photos: PhotoSample) => photos.flatMap(({ sketch }) => (sketch === null ? [] : [sketch]));
  const [before, now] = [sketches(reference), sketches(window)];
  if (Math.min(before.length, now.length) < LEAST_SKETCHES) return [];
  const test = 'domain-classifier';
  const result: TwoSampleResult = domainClassifier(before, now, seededRandom(seed));
  return [
    {
      ...{ kind: 'embedding', feature: 'embedding', test, ...result, leastEffect: LEAST_EFFECT[test] },
      ...{ reference: before.length, window: now.length },
    },
  ];
}

function comparePerformance({ tested, reviewed }: Performance): Found {
  const test = 'fisher-exact';
  return {
    ...{ kind: 'performance', feature: 'accuracy', test },
    ...{ ...rightLessOften(tested, reviewed), leastEffect: LEAST_EFFECT[test] },
    ...{ reference: tested.right / tested.total, window: reviewed.right / reviewed.total },
  };
}

function byHolm(found: readonly Found[], level: number): DriftFinding[] {
  const sorted = [...found].sort((a, b) => a.pValue - b.pValue);
  let stillRejecting = true;
  return sorted.map((finding, place) => {
    stillRejecting &&= finding.pValue <= level / (sorted.length - place);
    return { ...finding, drifted: stillRejecting && finding.effect >= finding.leastEffect };
  });
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function sharesOf(labels: readonly string[]): Record<string, number> {
  const byLabel = Map.groupBy(labels, (label) => label);
  return Object.fromEntries([...byLabel].map(([label, of]) => [label, of.length / labels.length]));
}
