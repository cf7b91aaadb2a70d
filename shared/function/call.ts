import { randomUUID } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { toDandelionError } from '../errors.ts';
import { type EncodedReply, encodeProblem } from './reply.ts';
import type { Runtime } from './runtime.ts';
import { continueTrace, type Trace } from './trace.ts';

/** What a route is for; decides which limits and checks apply to it. */
export type RouteKind = 'function' | 'runs' | 'metrics' | 'health';

/** One request, from its first byte to its log line. */
export interface Call {
  kind: RouteKind;
  startedAt: number;
  trace: Trace;
  log: Logger;
  /** ECS `faas.execution`: the run of a durable step, otherwise this request's own. */
  executionId: string;
  trigger: 'http' | 'pubsub';
  coldStart: boolean;
  error: unknown;
  /** Set by a handler before it failed; a problem keeps them. */
  headers: Record<string, string>;
}

declare module 'fastify' {
  interface FastifyRequest {
    call: Call | undefined;
  }
  interface FastifyContextConfig {
    kind?: RouteKind;
  }
}

/** The call of a request; made on first sight. */
export function callOf(runtime: Runtime, request: FastifyRequest): Call {
  if (request.call !== undefined) return request.call;
  const call: Call = {
    kind: request.routeOptions?.config?.kind ?? 'function',
    startedAt: performance.now(),
    executionId: randomUUID(),
    trigger: 'http',
    coldStart: false,
    error: undefined,
    headers: {},
    ...traced(runtime, request.headers.traceparent),
  };
  request.call = call;
  return call;
}

/**
 * Continues the trace of an event instead of that of the request. The event's own comes first: brokers start a new
 * trace for each delivery, while the event's leads from the first step of a pipeline to the last.
 */
export function continueEventTrace(runtime: Runtime, call: Call, traceparent: unknown): void {
  call.trigger = 'pubsub';
  if (traceparent === undefined) return;
  Object.assign(call, traced(runtime, traceparent));
}

function traced(runtime: Runtime, traceparent: unknown): { trace: Trace; log: Logger } {
  const trace = continueTrace(traceparent);
  return { trace, log: runtime.log.child({ 'trace.id': trace.traceId, 'span.id': trace.spanId }) };
}

/** Sends what was laid out. */
export function sendReply(reply: FastifyReply, encoded: EncodedReply): FastifyReply {
  reply.code(encoded.status).headers(encoded.headers);
  return encoded.body === undefined ? reply.send() : reply.send(encoded.body);
}

/** Answers with a problem, and counts and keeps it for the log line. */
export function sendProblem(runtime: Runtime, request: FastifyRequest, reply: FastifyReply, thrown: unknown) {
  const call = callOf(runtime, request);
  const error = toDandelionError(thrown);
  call.error = error;
  if (call.kind !== 'health') runtime.metrics.failed(error);
  return sendReply(reply, encodeProblem(error, call.trace.traceId, call.headers));
}

/** Writes the one log line of a request; probes, scrapes and (below `debug`) looks at runs are too many to be worth one. */
export function logCall(call: Call, request: FastifyRequest, reply: FastifyReply): void {
  if (call.kind === 'health' || call.kind === 'metrics') return;
  const answered = reply.raw.writableFinished;
  const status = reply.raw.statusCode;
  const error = call.error === undefined ? undefined : toDandelionError(call.error);
  const fields = {
    'event.kind': 'event',
    'event.category': ['web'],
    'event.action': 'request',
    'event.duration': Math.round((performance.now() - call.startedAt) * 1e6),
    'event.outcome': answered && status < 500 ? 'success' : 'failure',
    'http.request.method': request.method,
    'http.request.body.bytes': Number(request.headers['content-length'] ?? 0),
    ...(answered ? { 'http.response.status_code': status } : {}),
    'url.path': request.url.split('?', 1)[0],
    'client.address': request.ip,
    'faas.execution': call.executionId,
    'faas.coldstart': call.coldStart,
    'faas.trigger.type': call.trigger,
    ...(error === undefined ? {} : { 'error.code': error.code, 'error.message': error.message }),
  };
  const message = `${request.method} ${fields['url.path']} ${answered ? status : 'client left'}`;
  if (call.kind === 'runs' && error === undefined) call.log.debug(fields, message);
  else if (error === undefined || error.status < 500) call.log.info(fields, message);
  else call.log.error({ ...fields, err: error.cause instanceof Error ? error.cause : error }, message);
}
