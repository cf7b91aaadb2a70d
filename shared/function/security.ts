import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { DandelionError } from '../errors.ts';
import { isLoopback } from './settings.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);
const MAX_CLIENTS = 10_000;

/** Set on every answer; a page sets a content security policy of its own. */
export const securityHeaders: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
};

/**
 * Checks `Authorization: Bearer`, in a time that does not depend on where the token differs.
 *
 * @throws DandelionError `unauthorized`
 */
export function checkToken(authorization: string | undefined, token: string): void {
  const [scheme, given] = (authorization ?? '').split(' ', 2);
  const matches = scheme?.toLowerCase() === 'bearer' && timingSafeEqual(sha256(given ?? ''), sha256(token));
  if (matches) return;
  throw new DandelionError(
    'unauthorized',
    'Send the header "Authorization: Bearer" with the token of this server.',
  );
}

/** Digests are equally long, which the comparison asks for. */
function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Refuses requests that change state and come from a page of another site, or by a name that is not this machine's
 * although only this machine is listened to (DNS rebinding). Programs other than browsers send neither header.
 * Browsers let no page set `Sec-Fetch-Site` or `Origin`, nor `X-Forwarded-Host` without asking first.
 *
 * @param loopbackOnly true when the server listens on the loopback interface
 * @throws DandelionError `forbidden`
 */
export function checkOrigin(method: string, headers: IncomingHttpHeaders, loopbackOnly: boolean): void {
  if (SAFE_METHODS.has(method)) return;
  const hosts = [headers.host, headers['x-forwarded-host']].flatMap((host) => host ?? []);
  const rebound = headers.origin !== undefined && !isLoopback(hostnameOf(headers.host ?? ''));
  if (loopbackOnly && rebound) {
    throw new DandelionError('forbidden', 'Call this server as localhost; it serves no other name.');
  }
  const site = headers['sec-fetch-site'];
  if (site === 'same-origin' || site === 'none') return;
  const originHost = headers.origin === undefined ? undefined : hostOf(headers.origin);
  const sameHost = headers.origin === undefined || (originHost !== undefined && hosts.includes(originHost));
  if (site !== 'cross-site' && sameHost) return;
  throw new DandelionError('forbidden', 'Pages of other sites may not call this function.');
}

function hostOf(origin: string): string | undefined {
  return URL.parse(origin)?.host;
}

function hostnameOf(host: string): string {
  return URL.parse(`http://${host}`)?.hostname ?? host;
}

/**
 * A token bucket for each client: `perSecond` calls a second on average, `burst` at once.
 *
 * @returns a check that throws DandelionError `too-many-requests`
 */
export function createRateLimit(perSecond: number, burst = perSecond * 2): (client: string) => void {
  const rate =
    perSecond < 1 ? `${Math.round(perSecond * 60)} requests a minute` : `${perSecond} requests a second`;
  const buckets = new Map<string, { tokens: number; at: number }>();
  return (client) => {
    const now = performance.now();
    const bucket = buckets.get(client) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) / 1000) * perSecond);
    const taken = tokens >= 1;
    // Written last, read first: the oldest entry is the one to forget.
    buckets.delete(client);
    // What is refused takes nothing, or a client that asks faster than the rate would never be answered again.
    buckets.set(client, { tokens: taken ? tokens - 1 : tokens, at: now });
    const oldest = buckets.keys().next().value;
    if (buckets.size > MAX_CLIENTS && oldest !== undefined) buckets.delete(oldest);
    if (taken) return;
    throw new DandelionError('too-many-requests', `Send at most ${rate}.`, {
      retryAfterMs: Math.ceil(1000 / perSecond),
    });
  };
}
