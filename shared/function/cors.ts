import type { FastifyReply, FastifyRequest } from 'fastify';

/** What pages of other origins are told they may do. */
export interface CrossOrigin {
  /** Adds the headers of an answer; true when the request is a preflight, which they answer in full. */
  apply(request: FastifyRequest, reply: FastifyReply): boolean;
}

const ANY = '*';
const PREFLIGHT_AGE_SECONDS = 600;
/** Beyond those that every page may read. */
const READABLE_HEADERS =
  'dandelion-run, location, retry-after, ce-id, ce-source, ce-specversion, ce-type, ce-subject';

/**
 * Lets pages of these origins call an open function and read its answers, errors among them. Nothing depends on
 * cookies, so none are allowed; others get no headers, and their browsers keep the answer from them.
 *
 * Source: Fetch standard, section "CORS protocol".
 *
 * @param origins such as `https://flowers.example`; `*` for all
 * @returns `undefined` where no origin is listed: the function then sees OPTIONS itself
 */
export function createCrossOrigin(origins: readonly string[]): CrossOrigin | undefined {
  if (origins.length === 0) return undefined;
  const any = origins.includes(ANY);
  const listed = new Set(origins.map((origin) => origin.replace(/\/$/, '').toLowerCase()));
  return {
    apply(request, reply) {
      const { origin } = request.headers;
      // Caches must not hand the answer for one origin to another.
      if (!any) reply.header('vary', 'origin');
      const isPreflight =
        request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined;
      if (origin === undefined || !(any || listed.has(origin.toLowerCase()))) return isPreflight;
      reply.header('access-control-allow-origin', any ? ANY : origin);
      reply.header('access-control-expose-headers', READABLE_HEADERS);
      if (!isPreflight) return false;
      reply.header('access-control-allow-methods', 'GET, HEAD, POST');
      const asked = request.headers['access-control-request-headers'];
      if (asked !== undefined) reply.header('access-control-allow-headers', asked);
      reply.header('access-control-max-age', PREFLIGHT_AGE_SECONDS);
      return true;
    },
  };
}
