import { DandelionError } from '../../errors.ts';
import { parseJson } from '../../json.ts';
import { certificateFault } from '../../stores/certificates.ts';
import { timed } from './check.ts';

const ANSWER_WITHIN_MS = 5000;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  latencyMs: number;
  /** How far the server's clock is ahead of ours, where it tells the time. */
  clockAheadMs?: number;
}

/** Host and path of an address: never its password. */
export function placeOf(url: string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname.replace(/\/$/, '')}`;
}

/**
 * Asks a server one question; user and password may stand in the address.
 *
 * @param server what it is called, and the variable that names it
 * @throws DandelionError `store-unavailable` or `certificate-invalid`, with the cure
 */
export async function ask(
  url: string,
  server: { name: string; variable: string },
  init: RequestInit = {},
): Promise<Answer> {
  const { username, password, search } = new URL(url);
  const headers = new Headers(init.headers);
  if (username !== '') {
    const words = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    headers.set('authorization', `Basic ${Buffer.from(words).toString('base64')}`);
  }
  const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
  const sentMs = Date.now();
  try {
    const { answer, latencyMs } = await timed(async () => {
      const response = await fetch(`${placeOf(url)}${search}`, {
        redirect: 'manual',
        ...init,
        headers,
        signal,
      });
      return { response, text: await response.text() };
    });
    const { response, text } = answer;
    const clockAheadMs = clockAhead(response.headers.get('date'), sentMs);
    return { status: response.status, headers: response.headers, text, latencyMs, ...clockAheadMs };
  } catch (thrown) {
    throw explain(thrown, `${server.name} at ${placeOf(url)}`, server.variable);
  }
}

/** A member of a JSON answer, by its path; undefined where it is missing or no text. */
export function textAt(json: string, ...path: string[]): string | undefined {
  let value = parseJson(json);
  for (const name of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return typeof value === 'string' ? value : undefined;
}

/** By a `Date` header, which tells whole seconds, of the middle of question and answer. */
export function clockAhead(date: string | null | undefined, sentMs: number): { clockAheadMs?: number } {
  const servers = Date.parse(date ?? '');
  if (Number.isNaN(servers)) return {};
  return { clockAheadMs: Math.round(servers + 500 - (sentMs + Date.now()) / 2) };
}

function explain(thrown: unknown, place: string, variable: string): DandelionError {
  const outer = thrown instanceof Error ? thrown : new Error(String(thrown));
  const inner = outer.cause instanceof Error ? outer.cause : outer;
  const code = 'code' in inner ? String(inner.code) : '';
  const why = inner.message || code;
  if (outer.name === 'TimeoutError') {
    return trouble('store-unavailable', `does not answer within ${ANSWER_WITHIN_MS / 1000} s`);
  }
  const certificate = certificateFault(code, why);
  if (certificate !== undefined) return trouble('certificate-invalid', certificate);
  if (/^(EPROTO|ERR_SSL_)/.test(code)) {
    return trouble('store-unavailable', 'speaks no TLS there: use http://');
  }
  return trouble('store-unavailable', `cannot be reached (${code || why}): see that it runs`);

  function trouble(kind: 'store-unavailable' | 'certificate-invalid', sentence: string): DandelionError {
    return new DandelionError(kind, `${place} ${sentence}; check ${variable}.`, { cause: thrown });
  }
}
