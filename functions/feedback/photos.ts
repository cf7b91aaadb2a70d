import { DandelionError } from '../../shared/errors.ts';
import type { Database } from '../../shared/stores/database.ts';
import { isPhotoWaiting } from '../../shared/stores/feedback.ts';
import { imageKey } from '../../shared/stores/images.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { inspectPhoto, type PhotoFacts } from '../../shared/vision/photo-facts.ts';
import type { FeedbackSettings } from './config.ts';

/** What feedback works with. */
export interface FeedbackStores {
  db: Database;
  objects: ObjectStore;
}

/** Photos that wait for a review; not among those of datasets, so that a rejected one can be deleted. */
export function waitingKey(sha256: string): string {
  return `feedback/${sha256}`;
}

/**
 * Checks and stores a photo until it is reviewed.
 *
 * @throws DandelionError `image-too-large`, what {@link inspectPhoto} throws, `store-unavailable`
 */
export async function keepPhoto(
  { objects }: FeedbackStores,
  settings: FeedbackSettings,
  bytes: Uint8Array,
): Promise<PhotoFacts> {
  const { FEEDBACK_MAX_PHOTO_BYTES: maxBytes, FEEDBACK_MAX_PHOTO_PIXELS: maxPixels } = settings;
  if (bytes.byteLength > maxBytes) {
    throw new DandelionError('image-too-large', `A photo may have ${maxBytes} bytes at most.`);
  }
  const facts = await inspectPhoto(bytes, { maxPixels });
  await objects.put(waitingKey(facts.sha256), bytes);
  return facts;
}

/** Deletes a photo that no feedback waits with any more. */
export async function dropUnwantedPhoto({ db, objects }: FeedbackStores, sha256: string): Promise<void> {
  if (!(await isPhotoWaiting(db, sha256))) await objects.delete(waitingKey(sha256));
}

/** Puts a photo that waited among those of datasets; its feedback may have been accepted before, half way. */
export async function releasePhoto({ objects }: FeedbackStores, sha256: string): Promise<void> {
  if ((await objects.head(imageKey(sha256))) !== undefined) return;
  const { bytes } = await objects.get(waitingKey(sha256));
  await objects.put(imageKey(sha256), bytes);
}
