import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { DandelionError, type ErrorCode, toDandelionError } from '../../errors.ts';
import { trainingLabel } from '../../events.ts';
import type { Extractor } from '../../stores/extractor.ts';
import { type Corruption, corruptPhoto } from '../../vision/corruptions.ts';
import type { Samples } from '../../vision/cross-validation.ts';
import { decodePhoto } from '../../vision/decode.ts';
import { embedDecoded } from '../../vision/embedding.ts';
import type { Engine } from '../../vision/engine.ts';
import { assessPhoto, type ImageStatistics } from '../../vision/quality.ts';
import { groupNearDuplicates, perceptualHash } from '../../vision/similarity.ts';
import { listPhotoFiles, type PhotoFile } from '../photo-folder.ts';

/** A photo that can be learnt from. */
export interface EmbeddedFile extends PhotoFile {
  /** Path below the folder. */
  source: string;
  sha256: string;
  perceptualHash: string;
  statistics: ImageStatistics;
  vector: Float32Array;
  augmented: Float32Array;
  /** Of the photo as each corruption left it; empty unless asked for. */
  corrupted: Partial<Record<Corruption, Float32Array>>;
}

export interface RejectedFile {
  source: string;
  code: ErrorCode;
  reason: string;
}

export interface EmbeddedFolder {
  photos: EmbeddedFile[];
  rejected: RejectedFile[];
  samples: Samples;
}

/** Photos decoded at once and handed to the engine together. */
const BATCH = 16;

/**
 * Reads the photos of a folder with a sub-folder a class, as the pipeline would: what cannot be decoded, is blank or
 * carries two labels is set aside with its reason; of several copies one is used.
 *
 * @param corruptions to be embedded too
 * @throws DandelionError `bad-folder`, `too-few-classes`, `too-few-images`
 */
export async function embedFolder(
  folder: string,
  extractor: Extractor,
  onPhoto: (done: number, total: number) => void,
  corruptions: readonly Corruption[] = [],
): Promise<EmbeddedFolder> {
  const files = await listPhotoFiles(folder);
  const photos: EmbeddedFile[] = [];
  const rejected: RejectedFile[] = [];
  const seen = new Map<string, PhotoFact>();
  for (let start = 0; start < files.length; start += BATCH) {
    const batch = await Promise.all(
      files.slice(start, start + BATCH).map((file) => readFileOf(folder, file, extractor.engine.inputSize)),
    );
    const { usable, faults } = sortOut(batch, seen);
    rejected.push(...faults);
    const { vectors, augmented } = await embedDecoded(extractor.engine, usable);
    for (const [index, { pixels, ...photo }] of usable.entries()) {
      const none = new Float32Array();
      const corrupted = await embedCorrupted(extractor.engine, pixels, corruptions);
      photos.push({
        ...photo,
        vector: vectors[index] ?? none,
        augmented: augmented[index] ?? none,
        corrupted,
      });
    }
    onPhoto(Math.min(start + BATCH, files.length), files.length);
  }
  return { photos, rejected, samples: samplesOf(folder, photos, rejected) };
}

async function embedCorrupted(
  engine: Engine,
  pixels: Uint8Array,
  corruptions: readonly Corruption[],
): Promise<EmbeddedFile['corrupted']> {
  if (corruptions.length === 0) return {};
  const views = await Promise.all(corruptions.map((name) => corruptPhoto(pixels, engine.inputSize, name)));
  const { features } = await engine.run(Buffer.concat(views), views.length);
  const dimension = engine.featureDimension;
  return Object.fromEntries(
    corruptions.map((name, row) => [name, features.slice(row * dimension, (row + 1) * dimension)]),
  );
}

/** Photos met for the first time, and what is wrong with others; further copies of a photo are passed over. */
function sortOut(batch: readonly (DecodedFile | RejectedFile)[], seen: Map<string, PhotoFact>) {
  const usable: DecodedFile[] = [];
  const faults: RejectedFile[] = [];
  for (const found of batch) {
    if ('code' in found) {
      faults.push(found);
      continue;
    }
    const first = seen.get(found.sha256);
    if (first === undefined) usable.push(found);
    else if (first.label !== found.label) faults.push(conflict(found, first));
    seen.set(found.sha256, first ?? found);
  }
  return { usable, faults };
}

/** What tells a photo from others. */
type PhotoFact = Pick<EmbeddedFile, 'source' | 'label'>;

type DecodedFile = Omit<EmbeddedFile, 'vector' | 'augmented' | 'corrupted'> & { pixels: Uint8Array };

async function readFileOf(
  folder: string,
  file: PhotoFile,
  size: number,
): Promise<DecodedFile | RejectedFile> {
  const source = relative(folder, file.path);
  const named = trainingLabel.safeParse(file.label);
  if (!named.success) {
    const why = named.error.issues[0]?.message;
    return { source, code: 'bad-label', reason: `The label "${file.label}" is not allowed: ${why}.` };
  }
  try {
    const bytes = await readFile(file.path);
    const photo = await decodePhoto(bytes, { size });
    const { flags, statistics } = assessPhoto(photo);
    if (flags.includes('blank'))
      return { source, code: 'blank-image', reason: 'The photo shows one flat colour.' };
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    return {
      ...file,
      source,
      sha256,
      statistics,
      pixels: photo.pixels,
      perceptualHash: perceptualHash(photo),
    };
  } catch (thrown) {
    const { code, message } = toDandelionError(thrown);
    return { source, code, reason: message };
  }
}

function conflict({ source }: PhotoFact, first: PhotoFact): RejectedFile {
  return {
    source,
    code: 'conflicting-labels',
    reason: `It is the same photo as ${first.source}, which is labelled ${first.label}.`,
  };
}

function samplesOf(
  folder: string,
  photos: readonly EmbeddedFile[],
  rejected: readonly RejectedFile[],
): Samples {
  const [first] = rejected;
  const aside = first ? ` Set aside: ${rejected.length}, the first ${first.source}: ${first.reason}` : '';
  const classes = [...new Set(photos.map(({ label }) => label))].sort();
  if (classes.length < 2) {
    throw new DandelionError(
      'too-few-classes',
      `Usable photos in ${folder} are of ${classes.length === 1 ? 'one class' : 'no class'}; put two or more in, a folder a class.${aside}`,
    );
  }
  const groupOf = groupNearDuplicates(photos);
  const groups = photos.map(({ sha256 }) => groupOf.get(sha256) ?? sha256);
  for (const name of classes) {
    const own = new Set(groups.filter((_, index) => photos[index]?.label === name));
    if (own.size >= LEAST_GROUPS) continue;
    throw new DandelionError(
      'too-few-images',
      `Class "${name}" has too few photos that are not near-duplicates: ${own.size}, and cross-validation needs ${LEAST_GROUPS}.${aside}`,
    );
  }
  return { labels: Int32Array.from(photos, ({ label }) => classes.indexOf(label)), classes, groups };
}

/** A held-out fold takes one, and the rest is cross-validated once more to choose the penalty. */
const LEAST_GROUPS = 4;
