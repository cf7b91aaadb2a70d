import { DandelionError } from '../../shared/errors.ts';
import { readForm } from '../../shared/function/forms.ts';
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
    // One more than allowed, so that too many is noticed rather than cut off.
    const { files } = await readForm(event, { files: settings.PREDICT_MAX_PHOTOS + 1 }, HOW_TO_SEND);
    return { photos: files.map(({ bytes }) => bytes), many: files.length > 1 };
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
