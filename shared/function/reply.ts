import { DandelionError, type Problem, toDandelionError, toProblem } from '../errors.ts';
import type { Event } from '../events.ts';
import { encodeBinary, encodeStructured } from './cloudevents.ts';
import { type Answer, isEvent } from './context.ts';

/** How the request came, and so how its answer goes: plain HTTP, or a CloudEvent in one of two modes. */
export type ReplyMode = 'plain' | 'binary' | 'structured';

/** An answer as it goes onto the wire. */
export interface EncodedReply {
  status: number;
  headers: Record<string, string>;
  body: Buffer | string | undefined;
}

const DEFAULT_RETRY_AFTER_MS = 1000;

/**
 * Lays an answer out. A CloudEvent is answered with one CloudEvent or nothing, because a broker takes any other body
 * for a failure; plain HTTP is answered with JSON, text or bytes.
 *
 * @throws DandelionError `bad-result` when the value is no answer to this kind of request
 */
export function encodeAnswer(answer: Answer, mode: ReplyMode): EncodedReply {
  const { value, headers } = answer;
  if (mode !== 'plain') return encodeEventAnswer(value, mode);
  if (value === undefined) return { status: answer.status ?? 204, headers, body: undefined };
  const { contentType, body } = encodeValue(value);
  return { status: answer.status ?? 200, headers: { 'content-type': contentType, ...headers }, body };
}

function encodeEventAnswer(value: unknown, mode: 'binary' | 'structured'): EncodedReply {
  if (value === undefined) return { status: 204, headers: {}, body: undefined };
  if (!isEvent(value)) {
    throw new DandelionError(
      'bad-result',
      'A CloudEvent is answered with a CloudEvent or nothing: return context.result(...).',
    );
  }
  return encodeEvent(value, mode);
}

/** A 200 that carries an event. */
export function encodeEvent(event: Event, mode: 'binary' | 'structured'): EncodedReply {
  return { status: 200, ...(mode === 'structured' ? encodeStructured(event) : encodeBinary(event)) };
}

/** Headers that tell of a body, or how long to keep it: of no use on another one. */
const ABOUT_BODY = /^(content-.*|etag|last-modified|cache-control|expires)$/;

/**
 * A problem document (RFC 9457), with `Retry-After` where a repeat can help.
 *
 * @param headers what a handler had set before it failed, such as `allow`; those that tell of its body fall away
 */
export function encodeProblem(
  thrown: unknown,
  traceId: string,
  headers: Record<string, string> = {},
): EncodedReply & { problem: Problem } {
  const error = toDandelionError(thrown);
  const problem = { ...toProblem(error), traceId };
  const retryAfterMs = error.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS;
  const isBusy = problem.status === 429 || problem.status === 503;
  return {
    status: problem.status,
    headers: {
      ...Object.fromEntries(Object.entries(headers).filter(([name]) => !ABOUT_BODY.test(name))),
      'content-type': 'application/problem+json',
      ...(isBusy ? { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) } : {}),
      ...(problem.status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    },
    body: Buffer.from(JSON.stringify(problem)),
    problem,
  };
}

function encodeValue(value: unknown): { contentType: string; body: Buffer | string } {
  if (typeof value === 'string') return { contentType: 'text/plain; charset=utf-8', body: value };
  if (value instanceof Uint8Array)
    return { contentType: 'application/octet-stream', body: Buffer.from(value) };
  if (isEvent(value)) {
    const { headers, body } = encodeStructured(value);
    return { contentType: headers['content-type'] ?? 'application/cloudevents+json', body: body ?? '' };
  }
  return { contentType: 'application/json; charset=utf-8', body: toJson(value) };
}

function toJson(value: unknown): string {
  try {
    const text = JSON.stringify(value);
    if (text !== undefined) return text;
  } catch (error) {
    throw new DandelionError('bad-result', 'The function returned a value that JSON cannot hold.', {
      cause: error,
    });
  }
  throw new DandelionError('bad-result', `The function returned a ${typeof value}, which JSON cannot hold.`);
}
