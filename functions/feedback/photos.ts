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

/** A photo as feedback brought it. */
export interface GivenPhoto {
  /** Id of the feedback. */
  id: string;
  sha256: string;
}

/**
 * Photos that wait for a review; not among those of datasets, so that a rejected one can be deleted, and each feedback its
 * own, so that no verdict on another one takes it away: feedback that was reviewed never waits again.
 */
function waitingKey({ id, sha256 }: GivenPhoto): string {
  return `feedback/${id}/${sha256}`;
}

/** Where earlier releases kept a photo, one object for all feedback that gave it. */
function sharedKey(sha256: string): string {
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
  { id, bytes }: { id: string; bytes: Uint8Array },
): Promise<PhotoFacts> {
  const { FEEDBACK_MAX_PHOTO_BYTES: maxBytes, FEEDBACK_MAX_PHOTO_PIXELS: maxPixels } = settings;
  if (bytes.byteLength > maxBytes) {
    throw new DandelionError('image-too-large', `A photo may have ${maxBytes} bytes at most.`);
  }
  const facts = await inspectPhoto(bytes, { maxPixels });
  await objects.put(waitingKey({ id, sha256: facts.sha256 }), bytes);
  return facts;
}

/** Reads a photo that waits. @throws DandelionError `object-missing` */
export async function readWaitingPhoto({ objects }: FeedbackStores, photo: GivenPhoto): Promise<Uint8Array> {
  const key =
    (await objects.head(waitingKey(photo))) === undefined ? sharedKey(photo.sha256) : waitingKey(photo);
  return (await objects.get(key)).bytes;
}

/** Deletes a photo that its feedback no longer waits with. */
export async function dropUnwantedPhoto({ db, objects }: FeedbackStores, photo: GivenPhoto): Promise<void> {
  const { sha256 } = photo;
  if (!(await isPhotoWaiting(db, photo))) await objects.delete(waitingKey(photo));
  if (!(await isPhotoWaiting(db, { sha256 }))) await objects.delete(sharedKey(sha256));
}

/** Puts a photo that waited among those of datasets; its feedback may have been accepted before, half way. */
export async function releasePhoto(stores: FeedbackStores, photo: GivenPhoto): Promise<void> {
  const { objects } = stores;
  if ((await objects.head(imageKey(photo.sha256))) !== undefined) return;
  await objects.put(imageKey(photo.sha256), await readWaitingPhoto(stores, photo));
}
