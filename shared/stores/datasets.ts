import { digestOf, type EventData } from '../events.ts';
import { type Database, patient } from './database.ts';

export type Split = 'train' | 'validation' | 'test';
export type DatasetSummary = EventData<'dev.dandelion.features.stored.v1'>['dataset'];

/** A photo that may join a dataset. Photos of one near-duplicate group always share a split. */
export interface DatasetCandidate {
  sha256: string;
  /** Where it came from, for people. */
  source: string;
  label: string;
  group: string;
  /** The split it was given when it first joined a dataset of this model. */
  split: Split | null;
  /** Splits that photos of its group were given before, in this ingestion or any other of the model. */
  groupSplits: Split[];
  qualityFlags: string[];
}

export interface DatasetImage {
  sha256: string;
  label: string;
  group: string;
  split: Split;
}

const SHARE_OF_TRAIN = 0.7;
const SHARE_OF_TRAIN_AND_VALIDATION = 0.85;
/** Each class keeps at least this many groups in validation and in test, as far as 3 in 10 of its groups allow. */
const LEAST_HELD_OUT = 5;

/**
 * Gives every photo its split: 70/15/15 by a salted hash of its near-duplicate group, so that a photo's split
 * depends on nothing but itself, and decided once, so that no photo ever moves from training into a test.
 * A photo that joins groups of different splits is quarantined: either split would leak into the other.
 */
export function assignSplits(
  model: string,
  candidates: readonly DatasetCandidate[],
): { images: DatasetImage[]; quarantined: DatasetCandidate[] } {
  const images: DatasetImage[] = [];
  const quarantined: DatasetCandidate[] = [];
  for (const candidate of candidates) {
    const { sha256, label, group, groupSplits } = candidate;
    const isTorn = candidate.split === null && groupSplits.length > 1;
    if (isTorn) quarantined.push(candidate);
    else
      images.push({
        sha256,
        label,
        group,
        split: candidate.split ?? groupSplits[0] ?? splitOfGroup(model, group),
      });
  }
  const undecided = candidates.filter(({ split, groupSplits }) => split === null && groupSplits.length === 0);
  const movable = new Set(undecided.map(({ group }) => group));
  const byGroup = Map.groupBy(images, ({ group }) => group);
  for (const ofClass of Map.groupBy(images, ({ label }) => label).values()) {
    for (const split of ['test', 'validation'] as const) fillHeldOut(model, ofClass, byGroup, movable, split);
  }
  return { images, quarantined };
}

/** Small classes: moves undecided groups from training, in hash order, until the split has its least number. */
function fillHeldOut(
  model: string,
  ofClass: readonly DatasetImage[],
  byGroup: ReadonlyMap<string, readonly DatasetImage[]>,
  movable: ReadonlySet<string>,
  split: Split,
): void {
  const groupsIn = (images: readonly DatasetImage[]) => new Set(images.map(({ group }) => group));
  const least = Math.min(LEAST_HELD_OUT, Math.floor(groupsIn(ofClass).size * 0.3));
  // Versions of one photo say no more than one.
  const held = () => groupsIn(ofClass.filter((image) => image.split === split));
  // A large class has enough: its groups need not be hashed and sorted.
  if (held().size >= least) return;
  const spare = [...groupsIn(ofClass.filter((image) => image.split === 'train'))]
    .filter((group) => movable.has(group))
    .map((group) => ({ group, fraction: fractionOfGroup(model, group) }))
    .sort((a, b) => a.fraction - b.fraction);
  while (held().size < least) {
    const next = spare.pop();
    if (next === undefined) return;
    for (const image of byGroup.get(next.group) ?? []) image.split = split;
  }
}

function splitOfGroup(model: string, group: string): Split {
  const fraction = fractionOfGroup(model, group);
  if (fraction < SHARE_OF_TRAIN) return 'train';
  return fraction < SHARE_OF_TRAIN_AND_VALIDATION ? 'validation' : 'test';
}

function fractionOfGroup(model: string, group: string): number {
  return Number.parseInt(digestOf('split', model, group).slice(0, 12), 16) / 2 ** 48;
}

/** The dataset's name: `d` and 12 hex digits of a digest over every photo, label and split. */
export function datasetVersionOf(images: readonly DatasetImage[]): string {
  const lines = images.map(({ sha256, label, split }) => `${sha256} ${split} ${label}`).sort();
  return `d${digestOf(...lines).slice(0, 12)}`;
}

/** Counts of a snapshot, as events carry them. */
export function summariseDataset(images: readonly DatasetImage[]): DatasetSummary {
  // A map: a class may bear the name of what every object has, such as "constructor".
  const classes = new Map<string, number>();
  const splits = { train: 0, validation: 0, test: 0 };
  for (const { label, split } of images) {
    classes.set(label, (classes.get(label) ?? 0) + 1);
    splits[split] += 1;
  }
  const sorted = Object.fromEntries([...classes].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { version: datasetVersionOf(images), images: images.length, classes: sorted, splits };
}

/** The photos of an ingestion that may join a dataset, with the split each was given before. */
export function listCandidates(db: Database, ingestion: string): Promise<DatasetCandidate[]> {
  return patient(db)<DatasetCandidate[]>`
    with candidates as (
      select distinct on (i.sha256) i.model, i.sha256, e.source, i.label, i.split, i.quality_flags,
        coalesce(i.near_duplicate_group, i.sha256) as group_id
      from ingestion_images e join images i on i.model = e.model and i.sha256 = e.sha256
      where e.ingestion = ${ingestion}
      order by i.sha256, e.source
    )
    select sha256, source, label, group_id as "group", split,
      to_json(quality_flags) as "qualityFlags",
      to_json(array(
        select distinct o.split from images o
        where o.model = c.model and coalesce(o.near_duplicate_group, o.sha256) = c.group_id and o.split is not null
        order by o.split
      )) as "groupSplits"
    from candidates c order by sha256`;
}

/**
 * Writes an immutable snapshot and the splits it decided, in one statement. Writing the same snapshot again changes
 * nothing.
 */
export async function storeDataset(
  db: Database,
  dataset: { model: string; ingestion: string; seed: number; images: readonly DatasetImage[] },
): Promise<DatasetSummary> {
  const { model, ingestion, seed, images } = dataset;
  const summary = summariseDataset(images);
  const { version } = summary;
  await patient(db)`
    with given as materialized (
      select * from unnest(
        ${images.map((image) => image.sha256)}::text[], ${images.map((image) => image.label)}::text[],
        ${images.map((image) => image.split)}::text[], ${images.map((image) => image.group)}::text[])
        as photo (sha256, label, split, near_duplicate_group)),
    created as (
      insert into datasets (model, version, ingestion, seed, classes)
      values (${model}, ${version}, ${ingestion}, ${seed}, ${db.json(Object.keys(summary.classes))})
      on conflict do nothing returning model, version),
    listed as (
      insert into dataset_images (model, version, sha256, label, split, near_duplicate_group)
      select created.model, created.version, given.* from created, given)
    update images set split = given.split from created, given
    where images.model = created.model and images.sha256 = given.sha256 and images.split is null`;
  return summary;
}

/** The photos of a snapshot in the order of their digests. */
export function readDataset(
  db: Database,
  model: string,
  version: string,
  split?: Split,
): Promise<DatasetImage[]> {
  return patient(db)<DatasetImage[]>`
    select sha256, label, near_duplicate_group as "group", split from dataset_images
    where model = ${model} and version = ${version} ${split === undefined ? db`` : db`and split = ${split}`}
    order by sha256`;
}
