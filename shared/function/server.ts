import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Environment } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';
import { settlesWithin } from './abort.ts';
import { stepLimitMs } from './attempt.ts';
import { callOf, logCall, sendProblem } from './call.ts';
import { trackUnusedConnections } from './connections.ts';
import { createCrossOrigin } from './cors.ts';
import { initialise, notReadyReason } from './initialise.ts';
import { createLimits, type Slot } from './limits.ts';
import { createLogger, functionLogger } from './log.ts';
import { createMetrics } from './metrics.ts';
import { createNoticeBuffer } from './notices.ts';
import { pathOf } from './request.ts';
import { addFunctionRoute, requestLimitMs } from './routes-function.ts';
import { addHealthRoutes } from './routes-health.ts';
import { addDurableRoutes } from './routes-runs.ts';
import type { Runtime } from './runtime.ts';
import { checkOrigin, checkToken, createRateLimit, securityHeaders } from './security.ts';
import { isLoopback, readRuntimeSettings } from './settings.ts';
import { createSink } from './sink.ts';
import type { Telemetry } from './telemetry.ts';
import type { FunctionModule } from './types.ts';

const DEFAULT_BODY_LIMIT_BYTES = 1024 * 1024;
/** How long answers may take to leave once work was cut off. */
const FLUSH_MS = 2000;
/** A connection without any traffic is closed this long after the longest answer was due. */
const IDLE_BEYOND_LIMIT_MS = 60_000;

export interface FunctionServer {
  app: FastifyInstance;
  log: Logger;
  /** Listens on HOST and PORT; probes are answered from here on. */
  listen(): Promise<{ port: number; url: string }>;
  /** Opens the ledger for a durable function and runs the module's `init`; then the function is ready. */
  init(): Promise<void>;
  /** Stops: takes no more work, finishes what runs within the grace period, hands the rest over. */
  close(): Promise<void>;
}

export interface ServerOptions {
  name: string;
  env?: Environment | undefined;
  logger?: Logger | undefined;
  /** Keeps the function's figures. */
  telemetry?: Telemetry | undefined;
  /** False for a process that is there for one event: it takes over nothing that others left. Default true. */
  takesOver?: boolean;
}

/**
 * Makes the HTTP server of a function; `listen` and `init` start it.
 *
 * @throws DandelionError `bad-config` when the environment is not usable
 */
export function createFunctionServer(module: FunctionModule, options: ServerOptions): FunctionServer {
  const stop = new AbortController();
  const cut = new AbortController();
  const runtime = createRuntime(module, options, stop.signal, cut.signal);
  const app = createApp(runtime);
  const unused = trackUnusedConnections(app.server);

  return {
    app,
    log: runtime.log,
    listen: () => listen(app, runtime),
    init: () => initialise(runtime, options.takesOver ?? true),
    async close() {
      if (runtime.phase === 'stopping') return;
      runtime.phase = 'stopping';
      runtime.started.resolve();
      stop.abort();
      runtime.steps?.stopSweep();
      const drained = Promise.all([app.close(), runtime.limits.idle()]);
      unused.close();
      if (!(await settlesWithin(drained, runtime.settings.GRACE_PERIOD_MS))) {
        runtime.log.warn(`${runtime.limits.inFlight} requests and runs outlast the grace period`);
        cut.abort(new DandelionError('shutting-down', 'The function is stopping; send this again.'));
        await settlesWithin(Promise.all([drained, runtime.steps?.handOver()]), FLUSH_MS);
        app.server.closeAllConnections();
      }
      await runtime.steps?.flushNotices(AbortSignal.timeout(FLUSH_MS));
      runtime.limits.close();
      try {
        await module.shutdown?.();
      } finally {
        await runtime.notices.stop(AbortSignal.timeout(FLUSH_MS));
      }
    },
  };
}

function createRuntime(
  module: FunctionModule,
  options: ServerOptions,
  stopping: AbortSignal,
  cutOff: AbortSignal,
): Runtime {
  const env = options.env ?? process.env;
  const { name } = options;
  const settings = readRuntimeSettings(env, module);
  const logger =
    options.logger ?? createLogger({ name, level: settings.LOG_LEVEL, instanceId: settings.INSTANCE_ID });
  const log = functionLogger(logger, name, settings.K_REVISION);
  const limits = createLimits(settings, module.maxInFlight);
  const metrics = createMetrics(name, () => limits.inFlight, options.telemetry?.counts);
  options.telemetry?.reportMetrics(metrics, settings.K_REVISION);
  const sink = createSink(settings);
  return {
    ...{ name, module, env, settings, log, limits, metrics, sink, stopping, cutOff },
    notices: createNoticeBuffer({ name, settings, log, metrics, sink }, module.noticeBuffer),
    phase: 'starting',
    started: Promise.withResolvers(),
    waitsFor: undefined,
    steps: undefined,
    cold: true,
  };
}

async function listen(app: FastifyInstance, runtime: Runtime): Promise<{ port: number; url: string }> {
  const { HOST: host, PORT } = runtime.settings;
  try {
    await app.listen({ host, port: PORT });
  } catch (error) {
    if (!hasErrorCode(error, 'EADDRINUSE')) throw error;
    throw new DandelionError(
      'port-in-use',
      `Port ${PORT} is taken: stop the program that has it, or set PORT to another one.`,
      { cause: error },
    );
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address !== null ? address.port : PORT;
  return { port, url: `http://${host.includes(':') ? `[${host}]` : host}:${port}` };
}

function createApp(runtime: Runtime): FastifyInstance {
  const { module, settings } = runtime;
  const limitMs = module.durable === true ? stepLimitMs(module) : requestLimitMs(runtime);
  const app = Fastify({
    logger: false,
    trustProxy: settings.TRUSTED_PROXIES,
    bodyLimit: module.bodyLimitBytes ?? DEFAULT_BODY_LIMIT_BYTES,
    return503OnClosing: false,
    connectionTimeout: limitMs + IDLE_BEYOND_LIMIT_MS,
    requestTimeout: settings.REQUEST_TIMEOUT_MS,
    http: {
      headersTimeout: Math.min(settings.HEADERS_TIMEOUT_MS, settings.REQUEST_TIMEOUT_MS),
      connectionsCheckingInterval: Math.min(5000, settings.HEADERS_TIMEOUT_MS / 2),
    },
    frameworkErrors: (error, request, reply) => sendProblem(runtime, request, reply, fromFastify(error)),
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.decorateRequest('call', undefined);
  const slots = new WeakMap<FastifyRequest, Slot>();
  app.addHook('onRequest', createGate(runtime, slots));
  app.addHook('onSend', async (request, reply, payload) => {
    // A kept connection would hold the stop up, and its next request would meet a closed door.
    if (runtime.phase === 'stopping') reply.header('connection', 'close');
    // Closing while a body still comes would take the answer away from a sender that is not done; it is read and dropped.
    else if (reply.statusCode === 413) {
      reply.removeHeader('connection');
      request.raw.resume();
    }
    return payload;
  });
  app.setErrorHandler((error, request, reply) => sendProblem(runtime, request, reply, fromFastify(error)));
  app.setNotFoundHandler((request, reply) =>
    sendProblem(runtime, request, reply, new DandelionError('not-found', 'There is nothing at this path.')),
  );
  const slotOf = (request: FastifyRequest): Slot => {
    const slot = slots.get(request);
    if (slot === undefined) throw new DandelionError('internal', 'The request was let in without a slot.');
    return slot;
  };
  addHealthRoutes(app, runtime);
  if (module.durable === true) addDurableRoutes(app, runtime, slotOf);
  else addFunctionRoute(app, runtime, slotOf);
  return app;
}

/** Everything a request passes before its body is read. */
function createGate(runtime: Runtime, slots: WeakMap<FastifyRequest, Slot>) {
  const { module, settings } = runtime;
  const loopbackOnly = isLoopback(settings.HOST);
  const isOpen = module.open === true;
  const limitRate = isOpen && !loopbackOnly ? createRateLimit(settings.RATE_LIMIT_PER_SECOND) : undefined;
  const crossOrigin = isOpen ? createCrossOrigin(settings.CORS_ORIGINS) : undefined;

  return async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> => {
    const call = callOf(runtime, request);
    reply.headers(securityHeaders);
    reply.raw.once('close', () => logCall(call, request, reply));
    if (call.kind === 'health') return;
    if (call.kind === 'function' && crossOrigin?.apply(request, reply) === true)
      return reply.code(204).send();
    const guarded = isGuarded(module, request.url);
    const needsToken = !(isOpen && call.kind === 'function') || guarded;
    if (settings.DANDELION_TOKEN !== undefined && needsToken) {
      checkToken(request.headers.authorization, settings.DANDELION_TOKEN);
    } else if (guarded && !loopbackOnly) {
      throw new DandelionError('forbidden', `Set DANDELION_TOKEN for ${runtime.name} to use this path.`);
    }
    // A token is something that no page of another site has.
    const isToBeOurs = !isOpen || (guarded && settings.DANDELION_TOKEN === undefined);
    if (isToBeOurs) checkOrigin(request.method, request.headers, loopbackOnly);
    if (call.kind === 'metrics') return;
    limitRate?.(request.ip);
    if (runtime.phase === 'starting') {
      throw new DandelionError('not-ready', notReadyReason(runtime));
    }
    if (call.kind === 'runs') return;
    if (runtime.phase === 'stopping') {
      throw new DandelionError('shutting-down', 'The function is stopping; send this again.');
    }
    const slot = runtime.limits.enter();
    slots.set(request, slot);
    reply.raw.once('close', () => slot.leave());
    call.coldStart = runtime.cold;
    if (runtime.cold) runtime.metrics.coldStart();
    runtime.cold = false;
  };
}

/** True for the paths of an open function that are not open. */
function isGuarded({ guarded = [] }: FunctionModule, url: string): boolean {
  const path = pathOf(url);
  return guarded.some((start) => path === start || path.startsWith(`${start}/`));
}

/** Fastify's own errors, in the words of our catalogue. */
function fromFastify(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (typeof code !== 'string' || !code.startsWith('FST_')) return error;
  const detail = (error as Error).message;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new DandelionError('body-too-large', 'The body is larger than this function takes.', {
      cause: error,
    });
  }
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return new DandelionError('unsupported-media-type', detail);
  const status =
    'statusCode' in (error as Error) ? (error as Error & { statusCode?: number }).statusCode : 500;
  return status !== undefined && status < 500 ? new DandelionError('bad-request', detail) : error;
}
