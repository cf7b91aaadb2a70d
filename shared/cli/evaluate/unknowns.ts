import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { DandelionError, toDandelionError } from '../../errors.ts';
import { foldsOf, type Repeats, type Samples } from '../../vision/cross-validation.ts';
import { decodePhoto } from '../../vision/decode.ts';
import type { Engine } from '../../vision/engine.ts';
import { familiarityOf, learnFamiliarity } from '../../vision/familiarity.ts';
import { rocAucOf } from '../../vision/metrics.ts';
import { photoFilesBelow } from '../photo-folder.ts';
import { rowsOf } from './contenders.ts';
import type { EmbeddedFile, RejectedFile } from './photos.ts';

/** Photos of none of the classes. */
export interface OtherPhotos {
  sources: string[];
  /** Row-major [sources, dimension]. */
  features: Float32Array;
  rejected: RejectedFile[];
}

/** How well photos of the classes are told from photos of none of them: means over the folds of a cross-validation. */
export interface UnknownReport {
  others: number;
  /** Share of the training photos that the threshold is to let through. */
  acceptance: number;
  /** Of the familiarity: held-out photos of the classes against the others. */
  rocAuc: number;
  /** Share of the held-out photos that stay known. */
  accepted: number;
  /** Share of the others that are answered `unknown`. */
  refused: number;
  /** Others that were taken for one of the classes in more than half of the folds, the most familiar first. */
  mistaken: { source: string; share: number; familiarity: number }[];
  rejected: RejectedFile[];
}

/**
 * Embeds all photos below a folder, whatever sub-folders they are in.
 *
 * @throws DandelionError `bad-folder` when it cannot be read or has none
 */
export async function embedOthers(folder: string, engine: Engine): Promise<OtherPhotos> {
  const sources: string[] = [];
  const vectors: Float32Array[] = [];
  const rejected: RejectedFile[] = [];
  for (const { path } of await photoFilesBelow(folder)) {
    const source = relative(folder, path);
    try {
      const { pixels } = await decodePhoto(await readFile(path), { size: engine.inputSize });
      vectors.push((await engine.run(pixels, 1)).features);
      sources.push(source);
    } catch (thrown) {
      const { code, message } = toDandelionError(thrown);
      rejected.push({ source, code, reason: message });
    }
  }
  if (sources.length === 0) {
    throw new DandelionError('bad-folder', `--others: there is no usable photo in ${folder}.`);
  }
  const features = new Float32Array(vectors.length * engine.featureDimension);
  for (const [row, vector] of vectors.entries()) features.set(vector, row * engine.featureDimension);
  return { sources, features, rejected };
}

/** Learns from each fold what familiar photos are, as the train function does, and holds the others against it. */
export function measureUnknowns(
  photos: readonly EmbeddedFile[],
  samples: Samples,
  others: OtherPhotos,
  { acceptance, ...repeats }: Repeats & { acceptance: number },
): UnknownReport {
  const dimension = photos[0]?.vector.length ?? 0;
  const none = { features: new Float32Array(), labels: new Int32Array() };
  const vectorsOf = (rows: readonly number[]) => rowsOf(photos, rows, ({ vector }) => vector);
  const folds = foldsOf(samples, repeats).map(({ training, heldOut }) => {
    const learned = learnFamiliarity(
      {
        features: vectorsOf(training),
        labels: Int32Array.from(training, (photo) => samples.labels[photo] ?? 0),
        groups: training.map((photo) => samples.groups[photo] ?? ''),
      },
      none,
      { classes: samples.classes.length, dimension },
      acceptance,
    );
    const own = familiarityOf(learned.directions, vectorsOf(heldOut), heldOut.length);
    const foreign = familiarityOf(learned.directions, others.features, others.sources.length);
    const { threshold } = learned;
    return { own, foreign, threshold, rocAuc: rocAucOf(own, foreign) };
  });
  const mistaken = others.sources.map((source, index) => ({
    source,
    share: mean(folds.map(({ foreign, threshold }) => Number((foreign[index] ?? 0) >= threshold))),
    familiarity: mean(folds.map(({ foreign }) => foreign[index] ?? 0)),
  }));
  return {
    others: others.sources.length,
    acceptance,
    rocAuc: mean(folds.map(({ rocAuc }) => rocAuc)),
    accepted: mean(folds.map(({ own, threshold }) => shareAbove(own, threshold))),
    refused: mean(folds.map(({ foreign, threshold }) => 1 - shareAbove(foreign, threshold))),
    mistaken: mistaken.filter(({ share }) => share > 0.5).sort((a, b) => b.familiarity - a.familiarity),
    rejected: others.rejected,
  };
}

function shareAbove(familiarities: Float32Array, threshold: number): number {
  return familiarities.filter((familiarity) => familiarity >= threshold).length / familiarities.length;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
