import { DandelionError, type ErrorCode } from '../errors.ts';
import type { ImageSource } from '../events.ts';
import { digestOfPhoto, type PhotoFacts } from '../vision/photo-facts.ts';
import { type Database, patient } from './database.ts';
import type { ObjectStore } from './objects.ts';

/** A photo as it came into an ingestion. `source` is its address, path or name inside the archive. */
export interface IngestedImage extends PhotoFacts {
  source: string;
  label: string;
}

/** What near duplicates are told by: a model may have hundreds of thousands of them. */
export interface GroupedPhoto {
  sha256: string;
  /** 16 hex digits. */
  perceptualHash: string;
  nearDuplicateGroup: string | null;
}

/** An entry of a source that did not become a photo of the dataset. */
export interface RejectedEntry {
  source: string;
  code: ErrorCode;
  /** One sentence for people. */
  reason: string;
}

export interface Ingestion {
  id: string;
  model: string;
  source: ImageSource;
}

/** The object-store key of a photo's bytes. */
export function imageKey(sha256: string): string {
  return `images/${sha256}`;
}

/**
 * Reads the bytes of a photo and holds them against their digest.
 *
 * @throws DandelionError `object-missing` or `object-corrupt`
 */
export async function readPhoto(objects: ObjectStore, sha256: string): Promise<Buffer> {
  const key = imageKey(sha256);
  const { bytes } = await objects.get(key);
  if (digestOfPhoto(bytes) === sha256) return bytes;
  throw new DandelionError('object-corrupt', `"${key}" is not what was stored: run ingest again.`);
}

/**
 * Notes that an ingestion began, and forgets the rejections of earlier attempts: what was refused then is tried
 * again now. Photos that were stored stay.
 */
export async function beginIngestion(db: Database, ingestion: Ingestion): Promise<void> {
  const { id, model, source } = ingestion;
  await db`
    with begun as (
      insert into ingestions (id, model, source_kind, source_uri)
      values (${id}, ${model}, ${source.kind}, ${source.uri})
      on conflict (id) do update set finished_at = null, counts = null)
    delete from rejections where ingestion = ${id}`;
}

/** Notes that an ingestion ended, with the counts of its result. */
export async function finishIngestion(
  db: Database,
  id: string,
  counts: Record<string, number>,
): Promise<void> {
  await db`update ingestions set finished_at = now(), counts = ${db.json(counts)} where id = ${id}`;
}

/**
 * Writes a batch of photos of one ingestion. A photo the model knows already takes the new label, unless a person
 * corrected it since (`label_source` is then not `manifest`). Writing the same batch again changes nothing.
 */
export async function recordImages(
  db: Database,
  ingestion: Pick<Ingestion, 'id' | 'model'>,
  images: readonly IngestedImage[],
): Promise<void> {
  if (images.length === 0) return;
  const { id, model } = ingestion;
  // One statement must not touch a row twice; the order keeps two writers from waiting on each other.
  const photos = distinctBy(images, (image) => image.sha256).map(
    ({ perceptualHash, sizeBytes, ...image }) => ({
      model,
      ...image,
      size_bytes: sizeBytes,
      perceptual_hash: perceptualHash,
    }),
  );
  const entries = distinctBy(images, (image) => image.source).map(({ source, sha256, label }) => ({
    ingestion: id,
    source,
    model,
    sha256,
    label,
  }));
  await db`
    with photos as (
      insert into images ${db(photos, 'model', 'sha256', 'source', 'label', 'size_bytes', 'width', 'height', 'format', 'perceptual_hash')}
      on conflict (model, sha256) do update set label = excluded.label
      where images.label_source = 'manifest' and images.label <> excluded.label)
    insert into ingestion_images ${db(entries)}
    on conflict (ingestion, source) do update set sha256 = excluded.sha256, label = excluded.label
    where (ingestion_images.sha256, ingestion_images.label) <> (excluded.sha256, excluded.label)`;
}

/** Writes a batch of rejections; an entry that was rejected before keeps its latest reason. */
export async function recordRejections(
  db: Database,
  ingestion: string,
  rejections: readonly RejectedEntry[],
): Promise<void> {
  if (rejections.length === 0) return;
  const rows = distinctBy(rejections, (rejection) => rejection.source).map((rejection) => ({
    ingestion,
    source: rejection.source,
    code: rejection.code,
    reason: rejection.reason,
  }));
  await db`
    insert into rejections ${db(rows)}
    on conflict (ingestion, source) do update set code = excluded.code, reason = excluded.reason`;
}

/** The entries of an ingestion that became photos, in the order of their sources. */
export function listIngestedImages(db: Database, ingestion: string): Promise<IngestedImage[]> {
  return db<IngestedImage[]>`
    select e.source, e.label, e.sha256, i.size_bytes as "sizeBytes", i.width, i.height, i.format,
      i.perceptual_hash as "perceptualHash"
    from ingestion_images e join images i on i.model = e.model and i.sha256 = e.sha256
    where e.ingestion = ${ingestion}
    order by e.source`;
}

/** Photos of a model whose label a person reviewed, in the order of the digests. */
export function listReviewedPhotos(db: Database, model: string): Promise<IngestedImage[]> {
  return db<IngestedImage[]>`
    select source, label, sha256, size_bytes as "sizeBytes", width, height, format,
      perceptual_hash as "perceptualHash"
    from images where model = ${model} and label_source <> 'manifest' order by sha256`;
}

/** The entries of an ingestion that were refused, in the order of their sources; all of them unless `limit` is given. */
export function listRejections(
  db: Database,
  ingestion: string,
  limit: number | null = null,
): Promise<RejectedEntry[]> {
  return db<RejectedEntry[]>`
    select source, code, reason from rejections where ingestion = ${ingestion} order by source limit ${limit}`;
}

/** A photo that a model has already, whichever ingestion brought it. */
export async function findPhoto(
  db: Database,
  model: string,
  sha256: string,
): Promise<PhotoFacts | undefined> {
  const [photo] = await db<PhotoFacts[]>`
    select sha256, size_bytes as "sizeBytes", width, height, format, perceptual_hash as "perceptualHash"
    from images where model = ${model} and sha256 = ${sha256}`;
  return photo;
}

/** Every photo of a model, in the order of the digests. */
export function listPhotos(db: Database, model: string): Promise<GroupedPhoto[]> {
  return db<GroupedPhoto[]>`
    select sha256, perceptual_hash as "perceptualHash", near_duplicate_group as "nearDuplicateGroup"
    from images where model = ${model} order by sha256`;
}

/**
 * Takes entries out of an ingestion, and photos out of the model that no ingestion refers to any more; those with a
 * reviewed label stay.
 */
export async function withdrawEntries(
  db: Database,
  ingestion: Pick<Ingestion, 'id' | 'model'>,
  sources: readonly string[],
): Promise<void> {
  if (sources.length === 0) return;
  const { id, model } = ingestion;
  const withdrawn = [...sources];
  // The second half sees the entries as they were before the first one.
  await db`
    with removed as (
      delete from ingestion_images where ingestion = ${id} and source = any(${withdrawn}::text[])
      returning sha256)
    delete from images i using (select distinct sha256 from removed) r
    where i.model = ${model} and i.sha256 = r.sha256 and i.split is null and i.label_source = 'manifest'
      and not exists (
        select from ingestion_images e where e.model = i.model and e.sha256 = i.sha256
          and not (e.ingestion = ${id} and e.source = any(${withdrawn}::text[])))`;
}

/** Writes the near-duplicate group of each photo whose group changed. */
export async function recordGroups(
  db: Database,
  model: string,
  groups: ReadonlyMap<string, string>,
): Promise<void> {
  if (groups.size === 0) return;
  await patient(db)`
    update images set near_duplicate_group = g.group_id
    from unnest(${[...groups.keys()]}::text[], ${[...groups.values()]}::text[]) as g (sha256, group_id)
    where images.model = ${model} and images.sha256 = g.sha256
      and images.near_duplicate_group is distinct from g.group_id`;
}

/** The last item of each key, sorted by key. */
function distinctBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Item[] {
  const byKey = new Map(items.map((item) => [keyOf(item), item]));
  return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
}
