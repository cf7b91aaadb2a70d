import { z } from 'zod';
import { DandelionError } from '../../shared/errors.ts';
import { classLabel, type ImageSource, trainingLabel } from '../../shared/events.ts';
import type { FunctionEvent } from '../../shared/function/types.ts';
import type { PresignedPut } from '../../shared/stores/objects.ts';
import { INCOMING } from './added-photos.ts';
import { addressOf } from './bucket.ts';
import type { IngestStores } from './photo-store.ts';

const fileName = z
  .string()
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  .regex(/^[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]{0,199}$/, 'use the name of a file, without a folder');
const sizeBytes = z.number().int().positive();

const request = z.union([
  z.object({
    photos: z
      .array(z.object({ label: classLabel, name: fileName, sizeBytes }))
      .min(1)
      .max(1000),
  }),
  z.object({ archive: z.object({ name: fileName, sizeBytes }) }),
]);

/** Where one file goes, and how. */
export interface UploadGrant extends PresignedPut {
  key: string;
}

/**
 * Gives addresses for uploads that go to the object store past this function, of exactly the sizes announced:
 * `{ photos: [{ label, name, sizeBytes }] }` into `incoming/{label}/`, whose arrival starts a training where the bucket
 * notifies us, or `{ archive: { name, sizeBytes } }`, which a `retrain.requested` names by the `source` in the answer.
 *
 * @throws DandelionError `bad-data`, `bad-label`, `image-too-large`, `uploads-unsupported`
 */
export async function grantUploads(
  event: FunctionEvent,
  { objects, settings }: IngestStores,
): Promise<{ uploads: UploadGrant[]; source: ImageSource }> {
  const parsed = request.safeParse(event.body);
  if (!parsed.success) {
    throw new DandelionError(
      'bad-data',
      'Send { "photos": [{ "label", "name", "sizeBytes" }] } or { "archive": { "name", "sizeBytes" } } as JSON.',
    );
  }
  const grant = async (key: string, size: number, maxBytes: number): Promise<UploadGrant> => {
    if (size > maxBytes)
      throw new DandelionError('image-too-large', `"${key}" may have ${maxBytes} bytes at most.`);
    const expiresMs = settings.INGEST_UPLOAD_EXPIRES_MS;
    return { key, ...(await objects.presignPut(key, { sizeBytes: size, expiresMs })) };
  };
  if ('archive' in parsed.data) {
    const { name, sizeBytes: size } = parsed.data.archive;
    const key = `archives/${name}`;
    const uploads = [await grant(key, size, settings.INGEST_MAX_ARCHIVE_BYTES)];
    return { uploads, source: { kind: 'archive', uri: addressOf(objects, key) } };
  }
  for (const { label } of parsed.data.photos) checkLabel(label);
  const uploads = await Promise.all(
    parsed.data.photos.map(({ label, name, sizeBytes: size }) =>
      grant(`${INCOMING}${label}/${name}`, size, settings.INGEST_MAX_PHOTO_BYTES),
    ),
  );
  return { uploads, source: { kind: 'folder', uri: addressOf(objects, INCOMING) } };
}

function checkLabel(label: string): void {
  const { error } = trainingLabel.safeParse(label);
  if (error === undefined) return;
  throw new DandelionError('bad-label', `The label "${label}" is not allowed: ${error.issues[0]?.message}.`);
}
