import type { DatasetImage } from '../../shared/stores/datasets.ts';
import { readPhoto } from '../../shared/stores/images.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { ServedModel } from '../../shared/stores/served-model.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import { type ClassifierReport, evaluateClassifier } from '../../shared/vision/metrics.ts';
import type { Score } from './gate.ts';

/** A model's answers for the photos of a split, with the time each took. */
export interface Answers {
  /** photos x classes of the dataset */
  probabilities: Float32Array;
  latenciesMs: number[];
  /** Photos that predict would call unknown, whatever their likeliest class; null for a model that does not tell. */
  unknown: number | null;
}

/**
 * Lets a model answer photo by photo, from the stored bytes, as predict would. A class of the dataset that the
 * model does not know has probability 0; classes of its own fall away.
 */
export async function answerPhotos(
  model: ServedModel,
  objects: ObjectStore,
  images: readonly DatasetImage[],
  classes: readonly string[],
  options: { signal: AbortSignal; onPhoto: () => void },
): Promise<Answers> {
  const probabilities = new Float32Array(images.length * classes.length);
  const columns = classes.map((label) => model.record.classes.indexOf(label));
  const latenciesMs: number[] = [];
  const { unknown: limit } = model.record;
  let unknown = 0;
  for (const [row, image] of images.entries()) {
    options.signal.throwIfAborted();
    const photo = await decodePhoto(await readPhoto(objects, image.sha256), { size: model.engine.inputSize });
    const started = performance.now();
    const { scores, familiarity } = await model.answer(photo.pixels);
    latenciesMs.push(performance.now() - started);
    for (const [column, own] of columns.entries())
      probabilities[row * classes.length + column] = scores[own] ?? 0;
    if (limit !== undefined && familiarity !== undefined && familiarity < limit.threshold) unknown += 1;
    options.onPhoto();
  }
  return { probabilities, latenciesMs, unknown: limit === undefined ? null : unknown };
}

export interface ScoreReport {
  report: ClassifierReport;
}

/** Holds answers against the labels. */
export function scoreAnswers(
  model: ServedModel,
  answers: Answers,
  images: readonly DatasetImage[],
  classes: string[],
): Score & ScoreReport {
  const labels = Int32Array.from(images, (image) => classes.indexOf(image.label));
  const report = evaluateClassifier(answers.probabilities, labels, classes, {
    seed: model.record.training.seed,
  });
  const correct = images.map(
    (_, row) => predictedClass(answers.probabilities, row, classes.length) === labels[row],
  );
  return {
    report,
    metrics: report.summary,
    correct,
    overconfidence: overconfidenceOf(report),
    latencyMs: quantile(answers.latenciesMs, 0.5),
    undisturbedMs: quantile(answers.latenciesMs, 0.1),
    sizeBytes: model.sizeBytes,
  };
}

/** Mean over all photos of what their calibration bin is surer than right (the one-sided part of the ECE). */
function overconfidenceOf({ calibration, summary }: ClassifierReport): number {
  const excess = calibration.map(
    ({ photos, confidence, accuracy }) => photos * Math.max(0, confidence - accuracy),
  );
  return excess.reduce((sum, value) => sum + value, 0) / summary.images;
}

function predictedClass(probabilities: Float32Array, row: number, width: number): number {
  const scores = probabilities.subarray(row * width, (row + 1) * width);
  return scores.indexOf(Math.max(...scores));
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * share)] ?? 0;
}
