import type { Dispatcher } from 'undici';
import { DandelionError } from '../errors.ts';
import { errorCodeOf } from '../system-errors.ts';

/** @returns `image-too-large` */
export function tooLarge(maxBytes: number): DandelionError {
  return new DandelionError('image-too-large', `The file is larger than the limit of ${maxBytes} bytes.`);
}

/** @returns `download-timeout` */
export function timeoutError(timeoutMs: number): DandelionError {
  return new DandelionError('download-timeout', `The download took longer than ${timeoutMs / 1000} s.`);
}

const statusTexts: Record<number, string> = {
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  410: 'Gone',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** A status that is no success; `extra.httpStatus` holds it, and `extra.retryAfterMs` what the server asks for. */
export function statusError(response: Dispatcher.ResponseData): DandelionError {
  const { statusCode, headers } = response;
  const text = statusTexts[statusCode];
  const name = text === undefined ? statusCode : `${statusCode} (${text})`;
  const retryAfterMs = parseRetryAfter(firstOf(headers['retry-after']));
  return new DandelionError('download-failed', `The server answered ${name}.`, {
    extra: { httpStatus: statusCode, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
  });
}

/** Seconds or an HTTP date (RFC 9110, 10.2.3), as milliseconds from now. */
function parseRetryAfter(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** The error for whatever broke a transfer off; `extra.permanent` where a repeat meets the same. */
export function describeTrouble(error: unknown, url: string): DandelionError {
  if (error instanceof DandelionError) return error;
  const host = URL.canParse(url) ? new URL(url).host : url;
  const code = errorCodeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT') {
    return new DandelionError('download-timeout', `${host} did not accept a connection in time.`, {
      cause: error,
    });
  }
  const permanent = code.includes('CERT') || code.includes('TLS') || code.startsWith('ERR_SSL');
  const sentence = permanent
    ? `The TLS connection to ${host} cannot be trusted (${message}).`
    : (networkSentences[code]?.(host) ?? `The connection to ${host} failed (${message || code}).`);
  return new DandelionError('download-failed', sentence, {
    cause: error,
    extra: permanent ? { permanent } : {},
  });
}

const networkSentences: Record<string, (host: string) => string> = {
  ENOTFOUND: (host) => `The host name ${host} does not exist.`,
  EAI_AGAIN: (host) => `The host name ${host} cannot be looked up at the moment.`,
  ECONNREFUSED: (host) => `${host} refused the connection.`,
  ECONNRESET: (host) => `${host} broke the connection off.`,
  UND_ERR_SOCKET: (host) => `${host} broke the connection off.`,
  ENETUNREACH: (host) => `The network of ${host} cannot be reached.`,
  EHOSTUNREACH: (host) => `${host} cannot be reached.`,
};

/** The first of the values of a header. */
export function firstOf(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
