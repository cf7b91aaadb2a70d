import type { Database } from '../../shared/stores/database.ts';
import { findPhoto, type Ingestion, imageKey, listIngestedImages } from '../../shared/stores/images.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { digestOfPhoto, inspectPhoto, type PhotoFacts } from '../../shared/vision/photo-facts.ts';
import type { IngestSettings } from './config.ts';
import type { PhotoEntry } from './entries.ts';

/** What ingest works with. */
export interface IngestStores {
  settings: IngestSettings;
  db: Database;
  objects: ObjectStore;
}

/** Puts photos into the object store. */
export interface PhotoStore {
  /**
   * Reads, checks and stores the photo of an entry. `isNew` is false where an earlier attempt did so.
   *
   * @throws DandelionError what reading the entry throws, or `empty-file`, `not-an-image`, `truncated-image`,
   *   `too-many-pixels`
   */
  keep(entry: PhotoEntry): Promise<{ facts: PhotoFacts; isNew: boolean }>;
  /** Digests of photos that were in the object store before. */
  reused: ReadonlySet<string>;
}

/** Knows what earlier attempts and ingestions stored, so that nothing is fetched, decoded or written twice. */
export async function openPhotoStore(
  { db, objects, settings }: IngestStores,
  ingestion: Ingestion,
): Promise<PhotoStore> {
  const earlier = new Map((await listIngestedImages(db, ingestion.id)).map((image) => [image.source, image]));
  const known = new Map<string, PhotoFacts>();
  const reused = new Set<string>();
  const writes = new Map<string, Promise<void>>();

  const isStored = async (sha256: string): Promise<boolean> => {
    return (await objects.head(imageKey(sha256))) !== undefined;
  };
  const store = async (sha256: string, bytes: Uint8Array): Promise<void> => {
    if (await isStored(sha256)) reused.add(sha256);
    else await objects.put(imageKey(sha256), bytes);
  };
  const storeOnce = (sha256: string, bytes: Uint8Array): Promise<void> => {
    const write = writes.get(sha256) ?? store(sha256, bytes);
    writes.set(sha256, write);
    return write;
  };
  return {
    reused,
    async keep(entry) {
      const before = earlier.get(entry.source);
      if (before?.label === entry.label && (await isStored(before.sha256))) {
        reused.add(before.sha256);
        return { facts: before, isNew: false };
      }
      const bytes = await entry.open();
      const sha256 = digestOfPhoto(bytes);
      const maxPixels = settings.INGEST_MAX_PHOTO_PIXELS;
      const facts =
        known.get(sha256) ??
        (await findPhoto(db, ingestion.model, sha256)) ??
        (await inspectPhoto(bytes, { maxPixels, sha256 }));
      known.set(sha256, facts);
      await storeOnce(sha256, bytes);
      return { facts, isNew: true };
    },
  };
}
