import { DandelionError } from '../../shared/errors.ts';
import type { EventData } from '../../shared/events.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  type Ingestion,
  listIngestedImages,
  listPhotos,
  recordGroups,
  recordRejections,
  withdrawEntries,
} from '../../shared/stores/images.ts';
import { groupNearDuplicates } from '../../shared/vision/similarity.ts';
import type { Claim, Collected } from './collect.ts';
import type { WithReviewed } from './reviewed-photos.ts';

/** The photos of an ingestion, each once, with the one label it carries. */
export interface Settled {
  labelOf: ReadonlyMap<string, string>;
  /** Entries beyond the first of the same photo. */
  exactDuplicates: number;
}

/**
 * Counts every photo once and refuses those that carry different labels: nobody can learn from them, and a test
 * that contains them cannot be passed. A label that a person reviewed settles it, unless the source has no class of
 * that name. Takes entries out of the database that this attempt did not bring.
 */
export async function settleLabels(
  db: Database,
  ingestion: Ingestion,
  { claims, rejections, labels: known, reviewedLabels }: WithReviewed,
): Promise<Settled> {
  // Photos arrive in any order; what is said of them must not depend on it.
  const inOrder = claims.toSorted((a, b) => compare(a.source, b.source));
  const byPhoto = Map.groupBy(inOrder, (claim) => claim.sha256);
  const labelOf = new Map<string, string>();
  const kept = new Set<string>();
  const firstConflict = rejections.all().length;
  let keptEntries = 0;
  for (const [sha256, entries] of byPhoto) {
    const reviewed = reviewedLabels.get(sha256);
    const labels = [
      ...new Set(reviewed === undefined ? entries.map((entry) => entry.label) : [reviewed]),
    ].sort();
    const [label] = labels;
    if (label !== undefined && labels.length === 1 && known.has(label)) {
      labelOf.set(sha256, label);
      keptEntries += entries.length;
      for (const { source } of entries) kept.add(source);
    } else {
      for (const entry of entries) {
        const reason =
          reviewed === undefined
            ? describeConflict(entry, entries, labels)
            : `A review says "${reviewed}", of which this source has no photos; add that class or take the photo out.`;
        await rejections.add(entry.source, 'conflicting-labels', reason);
      }
    }
  }
  await recordRejections(db, ingestion.id, rejections.all().slice(firstConflict));
  const recorded = await listIngestedImages(db, ingestion.id);
  const stale = recorded.map((image) => image.source).filter((source) => !kept.has(source));
  await withdrawEntries(db, ingestion, stale);
  return { labelOf, exactDuplicates: keptEntries - labelOf.size };
}

function describeConflict(entry: Claim, entries: readonly Claim[], labels: readonly string[]): string {
  const other = entries.find(({ label, source }) => label !== entry.label && source !== entry.source);
  const where = other === undefined ? 'it is listed more than once' : `see ${other.source}`;
  const all = labels.map((label) => `"${label}"`).join(' and ');
  return `The same photo carries the labels ${all} (${where}); keep one.`;
}

/** Orders texts by code units, the same everywhere. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Groups photos that look alike, among all photos of the model, and stores the groups: a split that keeps groups
 * together does not test on what was trained on.
 *
 * @returns how many photos of this ingestion are near duplicates of another one of it
 */
export async function groupPhotos(
  db: Database,
  model: string,
  { labelOf }: Settled,
  maxDistance: number,
): Promise<number> {
  const photos = await listPhotos(db, model);
  const groups = groupNearDuplicates(photos, maxDistance);
  const changed = photos.filter((photo) => photo.nearDuplicateGroup !== groups.get(photo.sha256));
  await recordGroups(db, model, new Map(changed.map(({ sha256 }) => [sha256, groups.get(sha256) ?? sha256])));
  const groupsHere = new Set([...labelOf.keys()].map((sha256) => groups.get(sha256) ?? sha256));
  return labelOf.size - groupsHere.size;
}

/** The data of the result event. */
export type IngestResult = EventData<'dev.dandelion.images.ingested.v1'>;

/** How many rejections an event carries; the rest is in the database. */
const REJECTIONS_IN_EVENT = 500;

/** The counts of an ingestion. Classes whose photos all failed are there with 0. */
export function summarise(
  run: { ingestion: Ingestion; seed: number; nearDuplicates: number },
  collected: Collected,
  { labelOf, exactDuplicates }: Settled,
): IngestResult {
  const perClass = new Map([...collected.labels].sort().map((label) => [label, 0]));
  for (const label of labelOf.values()) perClass.set(label, (perClass.get(label) ?? 0) + 1);
  const rejections = collected.rejections.all().toSorted((a, b) => compare(a.source, b.source));
  return {
    model: run.ingestion.model,
    ingestion: run.ingestion.id,
    seed: run.seed,
    images: labelOf.size,
    classes: Object.fromEntries(perClass),
    reused: [...labelOf.keys()].filter((sha256) => collected.reused.has(sha256)).length,
    duplicates: { exact: exactDuplicates, near: run.nearDuplicates },
    rejectedCount: rejections.length,
    rejected: rejections.slice(0, REJECTIONS_IN_EVENT).map(({ source, reason }) => ({ source, reason })),
  };
}

/**
 * Checks that a classifier can be trained on what arrived. What was stored stays, so that a later ingestion need
 * not fetch it again.
 *
 * @throws DandelionError `no-images`, `too-few-classes`, `too-few-images`, with the rejections in `extra`
 */
export function requireEnough(result: IngestResult, minPhotosPerClass: number): void {
  const { classes, images, rejectedCount } = result;
  const refuse = (code: 'no-images' | 'too-few-classes' | 'too-few-images', sentence: string) => {
    const first = result.rejected[0];
    const hint =
      first === undefined ? '' : ` The first of ${rejectedCount} rejected: ${first.source}: ${first.reason}`;
    const rejected = result.rejected.slice(0, 20);
    throw new DandelionError(code, sentence + hint, { extra: { images, classes, rejectedCount, rejected } });
  };
  const names = Object.keys(classes);
  if (images === 0) {
    const sentence =
      rejectedCount === 0
        ? 'The source holds no files; put photos into a folder for each class.'
        : `None of the ${rejectedCount} entries is a usable photo.`;
    refuse('no-images', sentence);
  }
  if (names.length < 2) {
    refuse('too-few-classes', `All photos are of the class "${names[0]}"; add photos of a second class.`);
  }
  const small = Object.entries(classes).filter(([, photos]) => photos < minPhotosPerClass);
  if (small.length === 0) return;
  const list = small.map(([name, photos]) => `"${name}" has ${photos}`).join(', ');
  refuse(
    'too-few-images',
    `Every class needs ${minPhotosPerClass} usable photos or more: ${list}. Add photos, or leave the class out.`,
  );
}
