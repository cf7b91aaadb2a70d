import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DandelionError } from '../errors.ts';
import { untilAborted } from './abort.ts';
import { callOf, continueEventTrace, sendReply } from './call.ts';
import { invokeHandler } from './context.ts';
import type { Slot } from './limits.ts';
import { encodeAnswer } from './reply.ts';
import { decodeRequest } from './request.ts';
import type { Runtime } from './runtime.ts';

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
    const call = callOf(runtime, request);
    const { event, mode } = decodeRequest(request);
    if (event.cloudEvent !== undefined) continueEventTrace(runtime, call, event.cloudEvent.traceparent);
    const limit = limitTime(runtime, reply);
    const startedAt = performance.now();
    const handling = invokeHandler(runtime.module, {
      functionName: runtime.name,
      event,
      trace: call.trace,
      log: call.log.child({ 'faas.execution': call.executionId }),
      signal: limit.signal,
      attempt: 1,
      onProgress: () => {},
    }).finally(() => runtime.metrics.invoked(call.trigger, (performance.now() - startedAt) / 1000));
    try {
      const answer = await untilAborted(slotOf(request).during(handling), limit.signal);
      return sendReply(reply, encodeAnswer(answer, mode));
    } finally {
      limit.clear();
    }
  });
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

/** Aborts when the connection closes before the answer is written. */
export function clientGone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new DandelionError('cancelled', 'The client is gone.'));
  });
  return controller.signal;
}
