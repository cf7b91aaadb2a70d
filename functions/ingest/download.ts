import { setTimeout as sleep } from 'node:timers/promises';
import { DandelionError } from '../../shared/errors.ts';
import {
  fetchOutside,
  isTransient,
  type OutsideDocument,
  type OutsideOptions,
} from '../../shared/stores/outside.ts';
import type { IngestSettings } from './config.ts';
import type { SourceAccess } from './entries.ts';

const acceptedPhotos = 'image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5';

/**
 * Downloads one photo, with further tries where they may help.
 *
 * @throws DandelionError `address-refused`, `download-failed`, `download-timeout`, `image-too-large`
 */
export async function downloadPhoto(url: string, { settings, signal }: SourceAccess): Promise<Uint8Array> {
  const options: OutsideOptions = {
    allowedHosts: settings.INGEST_ALLOWED_HOSTS,
    timeoutMs: settings.INGEST_TIMEOUT_MS,
    maxBytes: settings.INGEST_MAX_PHOTO_BYTES,
    signal,
    accept: acceptedPhotos,
  };
  const { bytes } = await withTries(() => fetchOutside(url, options), settings, signal);
  return bytes;
}

/** Downloads a manifest into memory; errors as {@link downloadPhoto}. */
export function downloadManifest(url: string, { settings, signal }: SourceAccess): Promise<OutsideDocument> {
  const options: OutsideOptions = {
    allowedHosts: settings.INGEST_ALLOWED_HOSTS,
    timeoutMs: settings.INGEST_SOURCE_TIMEOUT_MS,
    maxBytes: settings.INGEST_MAX_MANIFEST_BYTES,
    signal,
    accept: 'text/csv,text/*;q=0.9,*/*;q=0.5',
  };
  return withTries(() => fetchOutside(url, options), settings, signal);
}

/**
 * Tries again after network trouble, time-outs, 429 and 5xx: exponential back-off with half of it random, so that
 * many downloads that failed together do not come back together; a server's `Retry-After` is honoured up to a cap.
 */
export async function withTries<Result>(
  attempt: () => Promise<Result>,
  settings: Pick<IngestSettings, 'INGEST_TRIES' | 'INGEST_BACKOFF_MS' | 'INGEST_RETRY_AFTER_CAP_MS'>,
  signal: AbortSignal,
): Promise<Result> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!isTransient(error)) throw error;
      if (tries >= settings.INGEST_TRIES) throw afterTries(error, tries);
      const backoffMs = settings.INGEST_BACKOFF_MS * 2 ** (tries - 1) * (0.5 + Math.random() / 2);
      const waitMs = Math.max(backoffMs, Math.min(retryAfterOf(error), settings.INGEST_RETRY_AFTER_CAP_MS));
      await sleep(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}

function retryAfterOf(error: unknown): number {
  const wanted = error instanceof DandelionError ? error.extra.retryAfterMs : undefined;
  return typeof wanted === 'number' ? wanted : 0;
}

function afterTries(error: unknown, tries: number): unknown {
  if (!(error instanceof DandelionError) || tries === 1) return error;
  const sentence = `${error.message.replace(/\.$/, '')} (tried ${tries} times).`;
  return new DandelionError(error.code, sentence, { cause: error, extra: error.extra });
}

/** True for `http://` and `https://`. */
export function isWebAddress(uri: string): boolean {
  return /^https?:\/\//i.test(uri);
}
