import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Html,
  heading,
  htmlFigure,
  htmlFigures,
  htmlPage,
  htmlTable,
  paragraph,
} from '../../vision/html-page.ts';
import { findContradictions, rankSuspects } from '../../vision/label-doctor.ts';
import { thumbnail } from '../../vision/thumbnail.ts';
import type { EmbeddedFolder, RejectedFile } from './photos.ts';

/** What a person may want to mend in a folder of photos. */
export interface Diagnosis {
  /** Photos whose label held-out answers contradict, the surest first. */
  suspects: {
    source: string;
    label: string;
    suggested: string;
    labelProbability: number;
    suggestedProbability: number;
  }[];
  /** Near-duplicates under different labels. */
  contradictions: { sources: [string, string]; labels: [string, string]; distance: number }[];
  /** Photos that could not be used. */
  rejected: RejectedFile[];
}

/**
 * Looks for labels and photos that are probably wrong.
 *
 * @param answers held-out probabilities by repeat
 */
export function diagnose(
  { photos, rejected, samples }: EmbeddedFolder,
  answers: readonly Float32Array[],
): Diagnosis {
  const sourceOf = (photo: number) => photos[photo]?.source ?? '';
  const hashes = photos.map(({ perceptualHash }) => perceptualHash);
  return {
    suspects: rankSuspects(answers, samples).map(({ photo, ...suspect }) => ({
      source: sourceOf(photo),
      ...suspect,
    })),
    contradictions: findContradictions(hashes, samples).map(({ photos: [first, second], ...pair }) => ({
      sources: [sourceOf(first), sourceOf(second)],
      ...pair,
    })),
    rejected,
  };
}

/** In pixels; shown at about this size. */
const THUMBNAIL = 180;

/** The diagnosis as a page with thumbnails. */
export async function doctorPage(
  folder: string,
  { suspects, contradictions, rejected }: Diagnosis,
): Promise<Buffer> {
  const figure = async (source: string, lines: string[]): Promise<Html> =>
    htmlFigure(await thumbnail(await readFile(join(folder, source)), THUMBNAIL), [source, ...lines]);
  const percent = (share: number) => `${(share * 100).toFixed(1)}\u00a0%`;
  const doubted = await Promise.all(
    suspects.map(({ source, label, suggested, ...probability }) =>
      figure(source, [
        `labelled ${label} (${percent(probability.labelProbability)})`,
        `looks like ${suggested} (${percent(probability.suggestedProbability)})`,
      ]),
    ),
  );
  const pairs = await Promise.all(
    contradictions.map(async ({ sources: [first, second], labels, distance }) => {
      const both = [await figure(first, [labels[0]]), await figure(second, [labels[1]])];
      return (
        htmlFigures(both, { pair: true }) + paragraph(`${distance} of the 64 bits of their hashes differ.`)
      );
    }),
  );
  return htmlPage(`Labels to look at in ${folder}`, [
    heading(`${suspects.length} labels that the model does not believe`),
    paragraph(
      'Each photo was answered by models that had not seen it. The surest contradiction comes first.',
    ),
    htmlFigures(doubted),
    heading(`${contradictions.length} pairs of near-duplicates under different labels`),
    ...pairs,
    heading(`${rejected.length} files that cannot be used`),
    htmlTable(
      ['file', 'why', 'code'],
      rejected.map(({ source, reason, code }) => [source, reason, code]),
    ),
  ]);
}
