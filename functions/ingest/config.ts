import { z } from 'zod';
import { count, list, modelName, storeSettings } from '../../shared/config.ts';
import { nearDuplicateDistance } from '../../shared/vision/similarity.ts';

const MEBIBYTE = 1024 * 1024;

/** Settings of the ingest step. */
export const ingestSettings = storeSettings.extend({
  /** Photos fetched and checked at the same time. */
  INGEST_CONCURRENCY: count(1).default(16),
  /** Tries of one download, the first included. */
  INGEST_TRIES: count(1).default(3),
  /** Time of one try of one photo, redirects included. */
  INGEST_TIMEOUT_MS: count(1).default(15_000),
  /** Wait before the second try; it doubles with each further one. */
  INGEST_BACKOFF_MS: count(0).default(500),
  /** Longest wait that a server's `Retry-After` is granted. */
  INGEST_RETRY_AFTER_CAP_MS: count(0).default(30_000),
  INGEST_MAX_PHOTO_BYTES: count(1).default(20 * MEBIBYTE),
  INGEST_MAX_PHOTO_PIXELS: count(1).default(50_000_000),
  INGEST_MAX_MANIFEST_BYTES: count(1).default(64 * MEBIBYTE),
  /** Of an archive as it is sent. */
  INGEST_MAX_ARCHIVE_BYTES: count(1).default(4096 * MEBIBYTE),
  /** Of everything in an archive, unpacked. */
  INGEST_MAX_UNPACKED_BYTES: count(1).default(16_384 * MEBIBYTE),
  /** Files and folders in an archive. */
  INGEST_MAX_ARCHIVE_ENTRIES: count(1).default(500_000),
  /** Time of one try of downloading a manifest or an archive. */
  INGEST_SOURCE_TIMEOUT_MS: count(1).default(900_000),
  /** Fewest photos of a class that training accepts. */
  INGEST_MIN_PHOTOS_PER_CLASS: count(1).default(10),
  /** Largest Hamming distance (of 64 bits) of two perceptual hashes that still count as near duplicates. */
  INGEST_NEAR_DUPLICATE_DISTANCE: count(0).default(nearDuplicateDistance),
  /** Folders that `file://` sources may read; none by default. */
  INGEST_FILE_ROOTS: list.default([]),
  /** Photos that appear under `incoming/` of the object store train this model. */
  MODEL_NAME: modelName.default('dandelion'),
  /** Such photos are waited for until none has come for so long ... */
  INGEST_QUIET_MS: count(0).default(10_000),
  /** ... and no longer than this after the first. */
  INGEST_LONGEST_BURST_MS: count(0).default(300_000),
  /** How long an upload address holds. */
  INGEST_UPLOAD_EXPIRES_MS: count(1000).default(3_600_000),
  /** The runtime's: where the request to train goes. */
  K_SINK: z.string().optional(),
  /** Hosts (`name` or `name:port`) that may be fetched from although their address is private. */
  INGEST_ALLOWED_HOSTS: list.default([]),
});
export type IngestSettings = z.infer<typeof ingestSettings>;
