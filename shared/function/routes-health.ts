import type { FastifyInstance } from 'fastify';
import { DandelionError } from '../errors.ts';
import { settlesWithin } from './abort.ts';
import { sendProblem } from './call.ts';
import { notReadyReason } from './initialise.ts';
import type { Runtime } from './runtime.ts';

/** Probes by Knative's paths and OpenFaaS's, and metrics; all answer while the function is at its limits. */
export function addHealthRoutes(app: FastifyInstance, runtime: Runtime): void {
  for (const path of ['/health/live', '/_/health']) {
    app.get(path, { config: { kind: 'health' } }, async () => ({ status: 'live' }));
  }
  for (const path of ['/health/ready', '/_/ready']) {
    app.get(path, { config: { kind: 'health' } }, async (request, reply) => {
      await settledStart(runtime);
      if (await isReady(runtime)) return { status: 'ready' };
      const why =
        runtime.phase === 'starting'
          ? notReadyReason(runtime)
          : `The function ${runtime.name} cannot take requests now.`;
      const error = new DandelionError('not-ready', why);
      return sendProblem(runtime, request, reply, error);
    });
  }
  app.get('/metrics', { config: { kind: 'metrics' } }, async (_request, reply) => {
    const { contentType, body } = await runtime.metrics.text();
    return reply.header('content-type', contentType).send(body);
  });
}

/**
 * Holds a probe while the function starts, so that the first request after zero waits for no further round of probes:
 * Knative's activator asks every 200 ms, the kubelet each periodSeconds. What waits for a store says so at once.
 */
async function settledStart({ phase, waitsFor, started, settings }: Runtime): Promise<void> {
  if (phase === 'starting' && waitsFor === undefined) {
    await settlesWithin(started.promise, settings.PROBE_HOLD_MS);
  }
}

async function isReady(runtime: Runtime): Promise<boolean> {
  if (runtime.phase !== 'ready') return false;
  try {
    return (await runtime.module.ready?.()) ?? true;
  } catch (error) {
    runtime.log.warn({ err: error }, 'the readiness check failed');
    return false;
  }
}
