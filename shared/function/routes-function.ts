import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { untilAborted } from './abort.ts';
import { answerBatch, type EventOutcome, eventOutcome, takesBatch } from './batch.ts';
import { callOf, continueEventTrace, sendReply } from './call.ts';
import { type Answer, emptyAnswer, invokeHandler } from './context.ts';
import type { Slot } from './limits.ts';
import { encodeAnswer } from './reply.ts';
import { decodeRequest, pathOf, storedRequest } from './request.ts';
import type { Runtime } from './runtime.ts';
import type { FunctionEvent } from './types.ts';

const DEFAULT_LIMIT_MS = 60_000;

/** Longest time one request to a function that is not durable may take. */
export function requestLimitMs(runtime: Runtime): number {
  return runtime.module.timeLimitMs ?? DEFAULT_LIMIT_MS;
}

/** Every path that is not the runtime's own goes to the handler. */
export function addFunctionRoute(
  app: FastifyInstance,
  runtime: Runtime,
  slotOf: (request: FastifyRequest) => Slot,
): void {
  app.all('/*', { config: { kind: 'function' } }, async (request, reply) => {
    const limit = limitTime(runtime, reply);
    try {
      if (takesBatch(runtime, request)) {
        return await answerBatch(runtime, request, reply, async (event) => {
          const work = { request, slot: slotOf(request), signal: limit.signal };
          return outcomeOf(await invokeWith(runtime, work, batchedRequest(request, event)));
        });
      }
      const { event, mode } = decodeRequest(request);
      const work = { request, slot: slotOf(request), signal: limit.signal };
      return sendReply(reply, encodeAnswer(await invokeWith(runtime, work, event), mode));
    } finally {
      limit.clear();
    }
  });
}

interface Work {
  request: FastifyRequest;
  slot: Slot;
  signal: AbortSignal;
}

/** Calls the handler; the client is answered as soon as the signal aborts, the place stays taken until it is done. */
function invokeWith(runtime: Runtime, work: Work, event: FunctionEvent): Promise<Answer> {
  const call = callOf(runtime, work.request);
  if (event.cloudEvent !== undefined) continueEventTrace(runtime, call, event.cloudEvent.traceparent);
  const startedAt = performance.now();
  const draft = emptyAnswer();
  call.headers = draft.headers;
  const invocation = {
    functionName: runtime.name,
    event,
    trace: call.trace,
    log: call.log.child({ 'faas.execution': call.executionId }),
    signal: work.signal,
    attempt: 1,
    onProgress: () => {},
    onNotice: (notice: Event) => runtime.notices.add(notice),
  };
  const handling = invokeHandler(runtime.module, invocation, draft).finally(() =>
    runtime.metrics.invoked(call.trigger, (performance.now() - startedAt) / 1000),
  );
  return untilAborted(work.slot.during(handling), work.signal);
}

/** An event of a batch as if it had come alone. */
function batchedRequest(request: FastifyRequest, cloudEvent: Event): FunctionEvent {
  const { headers, url, query } = request;
  return { ...storedRequest(cloudEvent), headers, path: pathOf(url), query: query as FunctionEvent['query'] };
}

function outcomeOf({ value }: Answer): EventOutcome {
  encodeAnswer({ value, status: undefined, headers: {} }, 'structured');
  return eventOutcome(value as Event | undefined);
}

/** Aborts when the client is gone, the time is up or the function's grace period is over. */
function limitTime(runtime: Runtime, reply: FastifyReply): { signal: AbortSignal; clear(): void } {
  const controller = new AbortController();
  const limitMs = requestLimitMs(runtime);
  const timer = setTimeout(() => {
    controller.abort(new DandelionError('time-limit', `The function took longer than ${limitMs} ms.`));
  }, limitMs);
  const signal = AbortSignal.any([controller.signal, clientGone(reply), runtime.cutOff]);
  return { signal, clear: () => clearTimeout(timer) };
}

/** Aborts when the connection closes, or has closed, before the answer is written. */
export function clientGone({ raw }: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const onClose = () => {
    if (!raw.writableFinished) controller.abort(new DandelionError('cancelled', 'The client is gone.'));
  };
  if (raw.closed) onClose();
  else raw.once('close', onClose);
  return controller.signal;
}
