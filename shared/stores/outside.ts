import { createWriteStream } from 'node:fs';
import type { LookupFunction } from 'node:net';
import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { type Dispatcher, request } from 'undici';
import { DandelionError } from '../errors.ts';
import { agentFor, refused } from './outside-connection.ts';
import { describeTrouble, firstOf, statusError, timeoutError, tooLarge } from './outside-trouble.ts';

/** What a fetch of an outside URL is allowed to do. */
export interface OutsideOptions {
  /** Hosts (`name` or `name:port`) exempt from the private-address rule; metadata addresses stay refused. */
  allowedHosts?: readonly string[];
  /** For the whole transfer: redirects, headers and body. */
  timeoutMs: number;
  /** Of the body, both as sent and once a content encoding is undone. */
  maxBytes: number;
  signal?: AbortSignal;
  /** Redirects followed; default 5. */
  redirects?: number;
  /** The `Accept` header; default anything. */
  accept?: string;
  /** Resolves names; the system's resolver unless a test brings its own. */
  lookup?: LookupFunction;
}

/** A transfer that is complete. */
export interface OutsideDocument {
  bytes: Uint8Array;
  /** Lower case, without parameters; empty when the server named none. */
  contentType: string;
  /** Where the redirects ended. */
  finalUrl: string;
}

const redirectStatuses = new Set([301, 302, 303, 307, 308]);

/**
 * Fetches a URL that a user named, without becoming a door into the network this process runs in.
 *
 * Only `http` and `https` without credentials; no private, loopback, link-local or otherwise special address
 * (IANA special-purpose registries), judged after DNS on the very address that is connected to, at every redirect.
 *
 * @throws DandelionError `address-refused`, `download-timeout`, `image-too-large`, or `download-failed`
 *   with `extra.httpStatus` when the server answered. Whether a repeat may help: see {@link isTransient}.
 *   An aborted `signal` throws its reason.
 */
export async function fetchOutside(url: string, options: OutsideOptions): Promise<OutsideDocument> {
  return transfer(url, options, async ({ body, contentType, finalUrl, lengthHint }) => {
    const bytes = await collect(body, lengthHint);
    return { bytes, contentType, finalUrl };
  });
}

/**
 * The same as {@link fetchOutside}, written to a file instead of memory.
 *
 * @throws DandelionError as {@link fetchOutside}; the file is then incomplete
 */
export async function saveOutside(
  url: string,
  path: string,
  options: OutsideOptions,
): Promise<{ sizeBytes: number; contentType: string; finalUrl: string }> {
  return transfer(url, options, async ({ body, contentType, finalUrl }) => {
    const file = createWriteStream(path);
    await pipeline(Readable.from(body), file);
    return { sizeBytes: file.bytesWritten, contentType, finalUrl };
  });
}

/** True where the same request may succeed later: network trouble, time-outs, 408, 429 and 5xx. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof DandelionError)) return false;
  if (error.code === 'download-timeout') return true;
  if (error.code !== 'download-failed') return false;
  const { httpStatus, permanent } = error.extra;
  if (permanent === true) return false;
  return typeof httpStatus !== 'number' || httpStatus >= 500 || httpStatus === 429 || httpStatus === 408;
}

interface OpenTransfer {
  body: AsyncIterable<Uint8Array>;
  contentType: string;
  finalUrl: string;
  /** Bytes announced by the server, never more than `maxBytes`; 0 when it announced none. */
  lengthHint: number;
}

/** Runs `use` on the open body under the time limit, and turns whatever goes wrong into one of our errors. */
async function transfer<Result>(
  url: string,
  options: OutsideOptions,
  use: (open: OpenTransfer) => Promise<Result>,
): Promise<Result> {
  const { signal, timeoutMs } = options;
  signal?.throwIfAborted();
  const limit = new AbortController();
  const forward = () => limit.abort(signal?.reason);
  const timer = setTimeout(() => limit.abort(timeoutError(timeoutMs)), timeoutMs);
  signal?.addEventListener('abort', forward, { once: true });
  try {
    return await use(await open(url, options, limit.signal));
  } catch (error) {
    if (limit.signal.aborted) throw limit.signal.reason;
    throw describeTrouble(error, url);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', forward);
  }
}

async function open(url: string, options: OutsideOptions, signal: AbortSignal): Promise<OpenTransfer> {
  const redirects = options.redirects ?? 5;
  let target = parseTarget(url);
  for (let hop = 0; hop <= redirects; hop++) {
    const response = await request(target, {
      dispatcher: agentFor(target, options.allowedHosts ?? [], options.lookup),
      signal,
      // The limit of the whole transfer rules; these would only add a second, coarser clock.
      headersTimeout: 0,
      bodyTimeout: 0,
      headers: { accept: options.accept ?? '*/*', 'accept-encoding': 'identity', 'user-agent': 'dandelion' },
    });
    const location = firstOf(response.headers.location);
    if (!redirectStatuses.has(response.statusCode) || location === undefined) {
      return readResponse(response, target, options.maxBytes);
    }
    discard(response);
    target = parseTarget(location, target);
  }
  throw new DandelionError('download-failed', `The server redirected more than ${redirects} times.`, {
    extra: { permanent: true },
  });
}

/** Parsing normalises every notation of an IPv4 host (decimal, octal, hexadecimal, full-width) to dotted form. */
function parseTarget(url: string, base?: URL): URL {
  if (!URL.canParse(url, base?.href)) throw refused(`"${url.slice(0, 200)}" is not a URL.`);
  const target = new URL(url, base);
  if (target.protocol !== 'http:' && target.protocol !== 'https:') {
    throw refused(`Only http and https addresses are fetched, not ${target.protocol}`);
  }
  if (target.username !== '' || target.password !== '') {
    throw refused('Addresses with a user name or password are not fetched.');
  }
  return target;
}

function readResponse(response: Dispatcher.ResponseData, target: URL, maxBytes: number): OpenTransfer {
  const { statusCode, headers, body } = response;
  if (statusCode < 200 || statusCode > 299) {
    discard(response);
    throw statusError(response);
  }
  const announced = Number(firstOf(headers['content-length']) ?? 0);
  if (announced > maxBytes) {
    discard(response);
    throw tooLarge(maxBytes);
  }
  const decoder = decoderOf(firstOf(headers['content-encoding']));
  const sent = capped(body, maxBytes);
  return {
    body: decoder === undefined ? sent : capped(decoded(sent, decoder), maxBytes),
    contentType: (firstOf(headers['content-type']) ?? '').split(';')[0]?.trim().toLowerCase() ?? '',
    finalUrl: target.href,
    lengthHint: decoder === undefined ? announced : 0,
  };
}

/** Servers may compress although asked not to; the cap on the outcome keeps a bomb small. */
function decoderOf(encoding: string | undefined): Transform | undefined {
  switch (encoding?.trim().toLowerCase() ?? '') {
    case '':
    case 'identity':
      return undefined;
    case 'gzip':
    case 'x-gzip':
      return createGunzip();
    case 'deflate':
      return createInflate();
    case 'br':
      return createBrotliDecompress();
    default:
      throw new DandelionError('download-failed', `The server used the unknown encoding "${encoding}".`, {
        extra: { permanent: true },
      });
  }
}

async function* decoded(source: AsyncIterable<Uint8Array>, decoder: Transform): AsyncIterable<Uint8Array> {
  // The pipeline's failure also destroys the decoder, so the loop below throws it; here it must not go unheard.
  const feeding = pipeline(Readable.from(source), decoder).catch((error: unknown) => error);
  try {
    for await (const chunk of decoder) yield chunk;
  } finally {
    decoder.destroy();
    await feeding;
  }
}

async function* capped(source: AsyncIterable<Uint8Array>, maxBytes: number): AsyncIterable<Uint8Array> {
  let received = 0;
  for await (const chunk of source) {
    received += chunk.byteLength;
    if (received > maxBytes) throw tooLarge(maxBytes);
    yield chunk;
  }
}

/** Gathers into a buffer that is allocated once when the length is known. */
async function collect(body: AsyncIterable<Uint8Array>, lengthHint: number): Promise<Uint8Array> {
  let bytes = Buffer.alloc(lengthHint);
  let length = 0;
  for await (const chunk of body) {
    if (length + chunk.byteLength > bytes.byteLength) {
      const larger = Buffer.alloc(Math.max(length + chunk.byteLength, bytes.byteLength * 2, 65_536));
      bytes.copy(larger, 0, 0, length);
      bytes = larger;
    }
    bytes.set(chunk, length);
    length += chunk.byteLength;
  }
  return bytes.subarray(0, length);
}

/** Drops a body that is not wanted; the connection goes with it, so that a large one is not read to its end. */
function discard(response: Dispatcher.ResponseData): void {
  response.body.on('error', () => {});
  response.body.destroy();
}
