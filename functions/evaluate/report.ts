import type { GateCheck, MetricsSummary } from '../../shared/events.ts';
import { type BootstrapIntervals, bootstrapIntervals } from '../../shared/vision/bootstrap.ts';
import { type PairedGain, pairedGain } from '../../shared/vision/cross-validation.ts';
import { type ClassifierReport, wilsonInterval } from '../../shared/vision/metrics.ts';
import { type Slice, type SliceFacts, sliceAccuracy } from '../../shared/vision/slices.ts';
import type { TestFindings } from './tracking.ts';
import type { ScoredModel } from './worker.ts';

/** `models/{name}/{version}/report.json`: all that the test split said of a model. */
export interface TestReport {
  schemaVersion: 1;
  model: { name: string; version: string };
  dataset: string;
  classes: string[];
  approved: boolean;
  checks: GateCheck[];
  metrics: MetricsSummary;
  intervals: BootstrapIntervals & { rocAuc: [number, number] };
  logLoss: number;
  /**
   * Photos that predict answers `unknown`, by how unlike the classes they are, with Wilson's interval of their share; the
   * other figures take their likeliest class for the answer. Null for a model that knows no threshold.
   */
  unknown: { photos: number; share: number; interval: [number, number] } | null;
  /** Photos by true class (row) and answer (column). */
  confusion: number[][];
  calibration: ClassifierReport['calibration'];
  roc: ClassifierReport['roc'];
  slices: Slice[];
  /** Photo by photo against the model that serves; null without one. */
  paired: (PairedGain & { champion: string }) | null;
}

/** Puts the findings together; `facts` are of the test photos, in their order. */
export function buildReport(
  { candidate, images, classes, approved }: TestFindings,
  champion: ScoredModel | undefined,
  checks: GateCheck[],
  facts: readonly SliceFacts[],
): TestReport {
  const { record, answers, score } = candidate;
  const { summary, confusion, calibration, roc, logLoss, rocAucInterval } = score.report;
  const labels = Int32Array.from(images, ({ label }) => classes.indexOf(label));
  const groups = images.map(({ group }) => group);
  const { seed } = record.training;
  const gainOver = ({ answers: rival, record: { version } }: ScoredModel) => ({
    champion: version,
    ...pairedGain([answers.probabilities], [rival.probabilities], { labels, classes, groups }),
  });
  return {
    schemaVersion: 1,
    model: { name: record.name, version: record.version },
    dataset: record.dataset.version,
    ...{ classes, approved, checks },
    metrics: summary,
    intervals: {
      ...bootstrapIntervals(answers.probabilities, labels, classes, { seed }),
      rocAuc: rocAucInterval,
    },
    logLoss,
    unknown: unknownOf(answers, images.length),
    ...{ confusion, calibration, roc },
    slices: sliceAccuracy(facts, score.correct),
    paired: champion === undefined ? null : gainOver(champion),
  };
}

function unknownOf({ unknown }: ScoredModel['answers'], photos: number): TestReport['unknown'] {
  if (unknown === null) return null;
  return { photos: unknown, share: unknown / photos, interval: wilsonInterval(unknown, photos) };
}
