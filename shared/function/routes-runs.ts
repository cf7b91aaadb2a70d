import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { DandelionError, type Problem } from '../errors.ts';
import { type Event, runIdOf } from '../events.ts';
import { schemaFaults } from '../schema-faults.ts';
import type { StepRun } from '../stores/steps.ts';
import { answerBatch, eventOutcome, takesBatch } from './batch.ts';
import { callOf, continueEventTrace, sendReply } from './call.ts';
import { toJsonEvent } from './cloudevents.ts';
import { type Accepted, hasEnded, type StepRunner } from './durable.ts';
import type { Slot } from './limits.ts';
import { type EncodedReply, encodeAnswer, encodeEvent, type ReplyMode } from './reply.ts';
import { decodeRequest, pathOf } from './request.ts';
import { ANSWER_DELIVERY_WITHIN_MS, resultGoesToSink } from './result-delivery.ts';
import { clientGone } from './routes-function.ts';
import type { Runtime } from './runtime.ts';
import { continueTrace } from './trace.ts';
import type { FunctionModule, RouteHandler } from './types.ts';

const MAX_WAIT_MS = 60_000;
const runPath = z.object({ id: z.string() });
const waitQuery = z.object({
  wait: z
    .string()
    .regex(/^\d+(\.\d+)?(ms|s)?$/, 'write a number of seconds, such as 25s')
    .transform((text) => Number.parseFloat(text) * (text.endsWith('ms') ? 1 : 1000))
    .default(0),
});
/** A path that browsers may see: no host, no scheme, nothing to break out of a header with. */
const prefixPattern = /^(\/[A-Za-z0-9._~-]+)+$/;

/** A durable function: events at `/`, its runs under `/runs`, and the routes that it has of its own. */
export function addDurableRoutes(
  app: FastifyInstance,
  runtime: Runtime,
  slotOf: (request: FastifyRequest) => Slot,
): void {
  const config = { kind: 'runs' } as const;

  for (const [path, route] of Object.entries(runtime.module.routes ?? {})) {
    app.post(path, { config: { kind: 'function' } }, (request, reply) =>
      takeRoute(runtime, request, reply, { route, slot: slotOf(request) }),
    );
  }

  app.all('/*', { config: { kind: 'function' } }, async (request, reply) => {
    const path = pathOf(request.url);
    if (path === '/' && request.method === 'POST') return takeEvent(runtime, request, reply, slotOf(request));
    const allowed = allowedMethod(path, runtime.module);
    if (allowed === undefined)
      throw new DandelionError('not-found', 'Send events to /; runs are under /runs.');
    reply.header('allow', allowed);
    throw new DandelionError('method-not-allowed', `Use ${allowed} on ${path}.`);
  });

  app.get('/runs/:id', { config }, async (request, reply) => {
    const { wait } = parse(waitQuery, request.query);
    const steps = stepsOf(runtime);
    const seen = await steps.look(runIdIn(runtime, request));
    const run = await steps.change(seen, Math.min(wait, MAX_WAIT_MS), clientGone(reply));
    return reply.header('dandelion-run', run.id).send(describeRun(run));
  });

  app.get('/outbox', { config }, async (request, reply) => {
    const { wait } = parse(waitQuery, request.query);
    await stepsOf(runtime).outboxSent(Math.min(wait, MAX_WAIT_MS), clientGone(reply));
    return reply.code(204).send();
  });

  app.get('/runs/:id/result', { config }, async (request, reply) => {
    const run = await stepsOf(runtime).look(runIdIn(runtime, request));
    reply.header('dandelion-run', run.id);
    if (!hasEnded(run)) throw new DandelionError('not-found', `The run ${run.id} is not finished yet.`);
    if (run.status !== 'succeeded') return sendReply(reply, encodeFailure(run, run.final ? 422 : 500));
    return sendReply(reply, encodeResult(run, 'structured'));
  });

  app.post('/runs/:id/retry', { config: { kind: 'function' } }, async (request, reply) => {
    const accepted = await stepsOf(runtime).retry(runIdIn(runtime, request), slotOf(request));
    return sendAccepted(request, reply, accepted);
  });
}

async function takeRoute(
  runtime: Runtime,
  request: FastifyRequest,
  reply: FastifyReply,
  { route, slot }: { route: RouteHandler; slot: Slot },
) {
  const { log, trace } = callOf(runtime, request);
  const { event } = decodeRequest(request);
  const signal = AbortSignal.any([clientGone(reply), runtime.cutOff]);
  const value = await route(event, {
    ...{ functionName: runtime.name, signal, log, traceparent: trace.traceparent },
    async start(started) {
      const { run } = await stepsOf(runtime).accept({ ...started, traceparent: trace.traceparent }, slot);
      return { id: run.id };
    },
  });
  return sendReply(reply, encodeAnswer({ value, status: undefined, headers: {} }, 'plain'));
}

function allowedMethod(path: string, { routes = {} }: FunctionModule): string | undefined {
  if (path === '/' || Object.hasOwn(routes, path) || /^\/runs\/[^/]+\/retry$/.test(path)) return 'POST';
  return /^\/runs\/[^/]+(\/result)?$/.test(path) ? 'GET, HEAD' : undefined;
}

async function takeEvent(runtime: Runtime, request: FastifyRequest, reply: FastifyReply, slot: Slot) {
  if (takesBatch(runtime, request)) return takeBatch(runtime, request, reply, slot);
  const call = callOf(runtime, request);
  const { event, mode } = decodeRequest(request);
  if (event.cloudEvent === undefined) {
    throw new DandelionError(
      'bad-event',
      `${runtime.name} takes CloudEvents: send the headers ce-id, ce-source, ce-type and ce-specversion: 1.0 with JSON data, or one document of type application/cloudevents+json.`,
    );
  }
  const steps = stepsOf(runtime);
  continueEventTrace(runtime, call, event.cloudEvent.traceparent);
  call.executionId = runIdOf(runtime.name, event.cloudEvent.source, event.cloudEvent.id);
  // Kept with the event, so that an attempt in another process goes on in the same trace.
  const traced: Event = { ...event.cloudEvent, traceparent: call.trace.traceparent };
  const accepted = await steps.accept(traced, slot);
  addRunHeaders(reply, accepted);
  if (prefersAsync(request)) {
    reply.header('preference-applied', 'respond-async');
    return sendAccepted(request, reply, accepted);
  }
  const isNew = !hasEnded(accepted.run);
  if (isNew && resultGoesToSink(runtime.settings, event.cloudEvent)) {
    return answerDelivery(steps, accepted.run.id, reply);
  }
  const run = await steps.outcome(accepted.run.id, clientGone(reply));
  if (run.status !== 'succeeded') return sendReply(reply, encodeFailure(run, run.problem?.status ?? 500));
  return sendReply(reply, encodeResult(run, mode));
}

/** The result goes on by itself, so a broker hears of failures only, and of those that come soon. */
async function answerDelivery(steps: StepRunner, id: string, reply: FastifyReply): Promise<FastifyReply> {
  const run = await steps.earlyOutcome(id, ANSWER_DELIVERY_WITHIN_MS, clientGone(reply));
  if (run === undefined) return reply.code(202).send();
  if (run.status === 'succeeded') return reply.code(204).send();
  return sendReply(reply, encodeFailure(run, run.problem?.status ?? 500));
}

/** Each event is a run of its own. */
async function takeBatch(runtime: Runtime, request: FastifyRequest, reply: FastifyReply, slot: Slot) {
  const steps = stepsOf(runtime);
  const isAsync = prefersAsync(request);
  const gone = clientGone(reply);
  if (isAsync) reply.header('preference-applied', 'respond-async');
  return answerBatch(runtime, request, reply, async (event) => {
    const { traceparent } = continueTrace(event.traceparent, request.headers.traceparent);
    const { run: accepted } = await steps.accept({ ...event, traceparent }, slot);
    if (isAsync) return { status: 202, location: `${prefixOf(request)}/runs/${accepted.id}` };
    const run = await steps.outcome(accepted.id, gone);
    if (run.status === 'succeeded') return eventOutcome(run.result ?? undefined);
    return { status: run.problem?.status ?? 500, ...(run.problem === null ? {} : { problem: run.problem }) };
  });
}

function addRunHeaders(reply: FastifyReply, { run, reused }: Accepted): void {
  reply.header('dandelion-run', run.id).header('dandelion-run-reused', String(reused));
}

function sendAccepted(request: FastifyRequest, reply: FastifyReply, accepted: Accepted): FastifyReply {
  addRunHeaders(reply, accepted);
  return reply
    .code(202)
    .header('location', `${prefixOf(request)}/runs/${accepted.run.id}`)
    .send();
}

/** The path under which the caller knows this function, such as `/function/train`. */
function prefixOf(request: FastifyRequest): string {
  const forwarded = request.headers['x-forwarded-prefix'];
  const prefix = typeof forwarded === 'string' ? forwarded.replace(/\/+$/, '') : '';
  return prefixPattern.test(prefix) ? prefix : '';
}

/** RFC 7240: preferences are separated by commas and compared without regard to case. */
function prefersAsync(request: FastifyRequest): boolean {
  const preferences = [request.headers.prefer ?? []].flat().join(',').toLowerCase().split(',');
  return preferences.some((preference) => preference.split(';', 1)[0]?.trim() === 'respond-async');
}

function encodeResult(run: StepRun, mode: ReplyMode): EncodedReply {
  if (run.result === null) return { status: 204, headers: {}, body: undefined };
  return encodeEvent(run.result, mode === 'binary' ? 'binary' : 'structured');
}

/** The problem as the ledger keeps it; its status may be another one, for sensors that know few. */
function encodeFailure(run: StepRun, status: number): EncodedReply {
  const problem: Partial<Problem> = { ...run.problem, status, run: run.id };
  const retryAfter: Record<string, string> = status === 503 || status === 429 ? { 'retry-after': '1' } : {};
  return {
    status,
    headers: { 'content-type': 'application/problem+json', ...retryAfter },
    body: Buffer.from(JSON.stringify(problem)),
  };
}

/** A run as callers see it. */
function describeRun(run: StepRun) {
  return {
    id: run.id,
    function: run.function,
    status: run.status,
    attempt: run.attempt,
    progress: run.progress,
    event: { id: run.event.id, source: run.event.source, type: run.event.type },
    createdAt: run.createdAt,
    startedAt: run.startedAt,
    updatedAt: run.updatedAt,
    finishedAt: run.finishedAt,
    result: run.result === null ? null : toJsonEvent(run.result),
    problem: run.problem,
  };
}

function runIdIn(runtime: Runtime, request: FastifyRequest): string {
  const { id } = parse(runPath, request.params);
  callOf(runtime, request).executionId = id;
  return id;
}

function parse<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new DandelionError('bad-request', `The request does not fit: ${schemaFaults(parsed.error)}.`);
}

function stepsOf(runtime: Runtime): StepRunner {
  if (runtime.steps !== undefined) return runtime.steps;
  throw new DandelionError('not-ready', `The function ${runtime.name} is still starting.`);
}
