import { createHash } from 'node:crypto';
import { decodePhoto } from './decode.ts';
import { perceptualHash } from './similarity.ts';

/** What is known of a photo's bytes, whoever labelled it. */
export interface PhotoFacts {
  sha256: string;
  sizeBytes: number;
  /** Pixels as displayed, after EXIF orientation. */
  width: number;
  height: number;
  format: string;
  /** 16 hex digits. */
  perceptualHash: string;
}

/**
 * Decodes all of a photo, so that a damaged one is found now and not in training.
 *
 * @throws DandelionError `empty-file`, `not-an-image`, `truncated-image`, `too-many-pixels`
 */
export async function inspectPhoto(
  bytes: Uint8Array,
  { maxPixels, sha256 = digestOfPhoto(bytes) }: { maxPixels?: number; sha256?: string } = {},
): Promise<PhotoFacts> {
  const photo = await decodePhoto(bytes, maxPixels === undefined ? {} : { maxPixels });
  const { width, height, format } = photo;
  const sizeBytes = bytes.byteLength;
  return { sha256, sizeBytes, width, height, format, perceptualHash: perceptualHash(photo) };
}

/** The name of a photo in the object store: hex SHA-256 of its bytes. */
export function digestOfPhoto(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
