import type { FastifyRequest } from 'fastify';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { decodeEvents, mediaTypeOf, parseBody } from './cloudevents.ts';
import type { ReplyMode } from './reply.ts';
import type { FunctionEvent } from './types.ts';

/** A request as a handler sees it, and how to answer it. */
export interface DecodedRequest {
  event: FunctionEvent;
  mode: ReplyMode;
}

const WITHOUT_BODY = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Reads a request: the CloudEvent where it carries one, otherwise the body by its media type.
 *
 * @throws DandelionError `bad-event`, `bad-request`, or `unsupported-media-type` (batches among them)
 */
export function decodeRequest(request: FastifyRequest): DecodedRequest {
  const rawBody = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
  const base = {
    rawBody,
    headers: request.headers,
    client: request.ip,
    method: request.method,
    path: pathOf(request.url),
    query: request.query as FunctionEvent['query'],
  };
  const message = WITHOUT_BODY.has(request.method) ? undefined : decodeEvents(request.headers, rawBody);
  if (message === undefined) {
    const body = parseBody(mediaTypeOf(request.headers['content-type']), rawBody);
    return { event: { ...base, body }, mode: 'plain' };
  }
  const [cloudEvent] = message.events;
  if (message.mode === 'batched' || cloudEvent === undefined) {
    throw new DandelionError(
      'unsupported-media-type',
      'Batches are not taken here; send one event a request.',
    );
  }
  return { event: { ...base, body: cloudEvent.data, cloudEvent }, mode: message.mode };
}

/** What a handler sees when an event comes out of the ledger instead of a request. */
export function storedRequest(cloudEvent: Event): FunctionEvent {
  const rawBody =
    cloudEvent.data instanceof Uint8Array
      ? Buffer.from(cloudEvent.data)
      : Buffer.from(JSON.stringify(cloudEvent.data) ?? '');
  return { body: cloudEvent.data, rawBody, headers: {}, method: 'POST', path: '/', query: {}, cloudEvent };
}

/** The path of a request target, without the query. */
export function pathOf(url: string): string {
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}
