import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { Busboy } from '@fastify/busboy';
import { DandelionError } from '../../shared/errors.ts';
import type { FunctionEvent } from '../../shared/function/types.ts';
import { jsonRequest, type PredictSettings } from './config.ts';

/** The photos of a request. `many` says whether the caller sent a list, and so expects a list. */
export interface PhotoRequest {
  photos: Uint8Array[];
  many: boolean;
}

const HOW_TO_SEND =
  'Send the bytes of a photo (Content-Type image/jpeg, image/png, image/webp, image/avif or image/gif), ' +
  'multipart/form-data with files, or JSON {"image": base64} or {"images": [base64]}.';

/**
 * Reads the photos out of a request by its media type.
 *
 * @throws DandelionError `bad-request`, `bad-data`, `empty-file`, `unsupported-media-type` or `forbidden`
 */
export async function readPhotos(
  event: FunctionEvent,
  settings: PredictSettings,
  signal: AbortSignal,
): Promise<PhotoRequest> {
  const request = await readByMediaType(event, settings, signal);
  if (request.photos.length === 0)
    throw new DandelionError('bad-request', `The request has no photo. ${HOW_TO_SEND}`);
  if (request.photos.length > settings.PREDICT_MAX_PHOTOS) {
    throw new DandelionError(
      'bad-data',
      `The request has ${request.photos.length} photos; ${settings.PREDICT_MAX_PHOTOS} is the most, send several requests.`,
    );
  }
  return request;
}

async function readByMediaType(
  event: FunctionEvent,
  settings: PredictSettings,
  signal: AbortSignal,
): Promise<PhotoRequest> {
  const type = mediaTypeOf(event);
  if (type.startsWith('image/') || type === 'application/octet-stream') {
    const bytes = event.cloudEvent === undefined ? event.rawBody : event.cloudEvent.data;
    return { photos: bytes instanceof Uint8Array ? [bytes] : [], many: false };
  }
  if (type === 'multipart/form-data') {
    const photos = await readMultipart(event, settings.PREDICT_MAX_PHOTOS);
    return { photos, many: photos.length > 1 };
  }
  if (type === 'application/json') {
    return readJson(event.cloudEvent === undefined ? event.body : event.cloudEvent.data, settings, signal);
  }
  throw new DandelionError(
    'unsupported-media-type',
    `"${type || 'no Content-Type'}" cannot be read. ${HOW_TO_SEND}`,
  );
}

function mediaTypeOf(event: FunctionEvent): string {
  const header = event.cloudEvent?.datacontenttype ?? event.headers['content-type'];
  const text = Array.isArray(header) ? header[0] : header;
  return (text ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}

async function readJson(
  body: unknown,
  settings: PredictSettings,
  signal: AbortSignal,
): Promise<PhotoRequest> {
  const parsed = jsonRequest.safeParse(body);
  if (!parsed.success)
    throw new DandelionError('bad-data', `The JSON is not a request for a prediction. ${HOW_TO_SEND}`);
  const request = parsed.data;
  if ('image' in request) return { photos: [Buffer.from(request.image, 'base64')], many: false };
  if ('images' in request)
    return { photos: request.images.map((text) => Buffer.from(text, 'base64')), many: true };
  if (!settings.PREDICT_ALLOW_URL) {
    throw new DandelionError(
      'forbidden',
      'Predicting by URL is off on this server; send the bytes of the photo.',
    );
  }
  const { fetchOutside } = await import('../../shared/stores/outside.ts');
  const { bytes } = await fetchOutside(request.url, {
    allowedHosts: [],
    timeoutMs: 15_000,
    maxBytes: 20_000_000,
    signal,
  });
  return { photos: [bytes], many: false };
}

/** Files of a form, in their order; fields are ignored. */
async function readMultipart(event: FunctionEvent, maxFiles: number): Promise<Uint8Array[]> {
  const contentType = event.headers['content-type'];
  const photos: Promise<Buffer>[] = [];
  try {
    const form = new Busboy({
      headers: { 'content-type': Array.isArray(contentType) ? (contentType[0] ?? '') : (contentType ?? '') },
      // One more than allowed, so that too many is noticed rather than cut off.
      limits: { files: maxFiles + 1, fields: 100, fieldSize: 1024 },
    });
    form.on('file', (_field, file) => {
      const photo = collect(file);
      // A body cut off within a file fails the form and the file; the second failure, unheard, would end the process.
      photo.catch(() => {});
      photos.push(photo);
    });
    Readable.from([event.rawBody]).pipe(form);
    await finished(form);
    return await Promise.all(photos);
  } catch (cause) {
    throw new DandelionError('bad-request', `The multipart body is malformed. ${HOW_TO_SEND}`, { cause });
  }
}

async function collect(file: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of file) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
