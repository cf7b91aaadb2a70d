import replyFrom from '@fastify/reply-from';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { DandelionError } from '../errors.ts';
import { decodeEvents } from '../function/cloudevents.ts';
import { encodeProblem } from '../function/reply.ts';
import { checkOrigin, checkToken, createRateLimit, securityHeaders } from '../function/security.ts';
import { isLoopback } from '../function/settings.ts';
import { continueTrace } from '../function/trace.ts';
import type { Broker } from './broker.ts';
import { keepBytes } from './event-bytes.ts';
import type { Pipeline, PipelineState } from './pipeline.ts';
import type { Processes } from './processes.ts';

export interface GatewayOptions {
  /** 0: any free one. */
  port: number;
  /** Default 127.0.0.1. Anything wider needs a token. */
  host?: string;
  token?: string;
  processes: Processes;
  broker: Broker;
  pipeline: Pipeline;
  logger: Logger;
  /** How long `close` waits for requests under way, those that a client never finishes among them; default 20 s. */
  graceMs?: number;
}

export interface Gateway {
  /** Address for people and programs on this machine. */
  url: string;
  /** Takes no more requests; resolves when those under way are answered. */
  close(): Promise<void>;
}

/** Functions that strangers may call; what of them is not for strangers, they guard themselves. */
const openFunctions = new Set(['predict', 'feedback', 'webapp']);
/** Of one client, when other machines can reach this platform. */
const openRequestsPerSecond = 50;
const eventLimitBytes = 1024 * 1024;
const heartbeatMs = 15_000;

/**
 * Starts the one door of the local platform: functions under `/function/{name}/`, the page at `/`, the Open
 * Inference Protocol under `/v2`, events at `/broker`, webhooks of others under `/hooks`, the state of the pipeline at `/pipeline`.
 *
 * @throws DandelionError `port-in-use`, or `bad-config` when other machines could reach it and there is no token
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { port, host = '127.0.0.1', token, graceMs = 20_000 } = options;
  if (!isLoopback(host) && (token === undefined || token === '')) {
    throw new DandelionError(
      'bad-config',
      `HOST is ${host}, so other machines could reach this platform: set DANDELION_TOKEN, or leave HOST unset.`,
    );
  }
  const streams = new Set<FastifyReply>();
  const app = Fastify({ logger: false, forceCloseConnections: 'idle', bodyLimit: Number.MAX_SAFE_INTEGER });
  addGuards(app, { host, token });
  // Bodies go through as they come, unread.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  await app.register(replyFrom, {
    disableCache: true,
    disableRequestLogging: true,
    // A step may work for an hour before its answer begins.
    undici: { headersTimeout: 0, bodyTimeout: 0 },
  });
  addRoutes(app, options, streams);
  await listen(app, port, host);
  const address = app.server.address();
  const actualPort = address !== null && typeof address === 'object' ? address.port : port;
  return {
    url: `http://${nameOf(host)}:${actualPort}`,
    async close() {
      for (const stream of streams) stream.raw.end();
      const cutOff = setTimeout(() => app.server.closeAllConnections(), graceMs);
      await app.close();
      clearTimeout(cutOff);
    },
  };
}

/** The name under which this machine reaches a server that listens there. */
function nameOf(host: string): string {
  if (['127.0.0.1', '::1', '0.0.0.0', '::', 'localhost'].includes(host)) return 'localhost';
  return host.includes(':') ? `[${host}]` : host;
}

async function listen(app: FastifyInstance, port: number, host: string): Promise<void> {
  try {
    await app.listen({ port, host });
  } catch (error) {
    await app.close();
    if (!(error instanceof Error) || !('code' in error)) throw error;
    if (error.code === 'EADDRINUSE') {
      throw new DandelionError(
        'port-in-use',
        `Port ${port} is taken by another program: stop it or use --port N.`,
        { cause: error },
      );
    }
    throw new DandelionError('bad-config', `Cannot listen on ${host}:${port}: ${error.message}.`, {
      cause: error,
    });
  }
}

function addGuards(app: FastifyInstance, { host, token }: { host: string; token?: string }): void {
  const loopbackOnly = isLoopback(host);
  const limitRate = createRateLimit(openRequestsPerSecond);
  app.addHook('onRequest', async (request) => {
    if (loopbackOnly && !isLoopback(request.hostname)) {
      throw new DandelionError('forbidden', 'Call this server as localhost; it serves no other name.');
    }
    checkOrigin(request.method, request.headers, loopbackOnly);
    if (loopbackOnly || token === undefined) return;
    const { name = '' } = request.params as { name?: string };
    const path = request.routeOptions.url ?? '';
    if (!path.startsWith('/health')) limitRate(request.ip);
    const guarded =
      path === '/broker' ||
      path.startsWith('/hooks/') ||
      (path.startsWith('/function/') && !openFunctions.has(name));
    if (guarded) checkToken(request.headers.authorization, token);
  });
  app.setErrorHandler((error, request, reply) => {
    const { status, headers, body } = encodeProblem(
      clientFault(error),
      continueTrace(request.headers.traceparent).traceId,
    );
    return reply
      .code(status)
      .headers({ ...securityHeaders, ...headers })
      .send(body);
  });
}

/** Faults that the HTTP server found in a request, in the words of the catalogue. */
function clientFault(error: unknown): unknown {
  if (error instanceof DandelionError || !(error instanceof Error)) return error;
  const status = 'statusCode' in error ? Number(error.statusCode) : 500;
  return status >= 400 && status < 500 ? new DandelionError('bad-request', error.message) : error;
}

function addRoutes(app: FastifyInstance, options: GatewayOptions, streams: Set<FastifyReply>): void {
  const { pipeline, broker } = options;
  const toFunction = (request: FastifyRequest, reply: FastifyReply) => {
    const { name } = request.params as { name: string };
    const prefix = `/function/${name}`;
    return forward(options, request, reply, { name, prefix, target: request.url.slice(prefix.length) });
  };
  const to = (name: string) => (request: FastifyRequest, reply: FastifyReply) =>
    forward(options, request, reply, { name, target: request.url });

  app.get('/health/live', async () => ({ status: 'ok' }));
  app.get('/pipeline', async (request, reply) => {
    reply.headers(securityHeaders).header('cache-control', 'no-store').header('vary', 'accept');
    if (!request.headers.accept?.includes('text/event-stream')) return pipeline.snapshot();
    streamPipeline(pipeline, reply, streams);
    return reply;
  });
  app.post('/broker', async (request, reply) => {
    await broker.publish(await readEvent(request));
    return reply.code(202).headers(securityHeaders).send();
  });
  app.all('/function/:name', toFunction);
  app.all('/function/:name/*', toFunction);
  app.post('/hooks/*', to('ingest'));
  app.all('/v2', to('predict'));
  app.all('/v2/*', to('predict'));
  app.all('/*', to('webapp'));
}

interface Route {
  name: string;
  /** Path and query at the function. */
  target: string;
  /** What was cut off the path. */
  prefix?: string;
}

async function forward(
  { processes, token }: GatewayOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  { name, target, prefix }: Route,
) {
  const { url, release } = await processes.acquire(name);
  reply.raw.once('close', release);
  // The client may have left while the function started.
  if (reply.raw.destroyed) release();
  const path = target.startsWith('/') ? target : `/${target}`;
  return reply.from(`${url}${path}`, {
    // A 503 is the client's to see, not to be waited out here.
    retryDelay: () => null,
    // Node has already told a client that asks with Expect (curl, above 1 MB) to go on.
    rewriteRequestHeaders: (_request, { expect: _answered, ...headers }) => ({
      ...headers,
      'x-forwarded-host': request.headers.host,
      'x-forwarded-proto': 'http',
      'x-forwarded-for': request.ip,
      'x-forwarded-prefix': prefix,
      ...(token === undefined || openFunctions.has(name) ? {} : { authorization: `Bearer ${token}` }),
    }),
    onError: (failed, { error }) => {
      failed.send(
        new DandelionError('upstream-unavailable', `The function ${name} broke off: ${error.message}.`, {
          cause: error,
          retryAfterMs: 1000,
        }),
      );
    },
  });
}

/** @throws DandelionError `bad-event`, `body-too-large`, `unsupported-media-type` */
async function readEvent(request: FastifyRequest) {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of (request.body ?? []) as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > eventLimitBytes) {
      throw new DandelionError(
        'body-too-large',
        `An event has at most ${eventLimitBytes} bytes: send references.`,
      );
    }
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  const message = decodeEvents(request.headers, body);
  const [event] = message?.events ?? [];
  if (message?.mode === 'batched') {
    throw new DandelionError(
      'unsupported-media-type',
      'Batches are not taken here; send one event a request.',
    );
  }
  if (event !== undefined) {
    if (message?.mode === 'binary') keepBytes(event, body);
    return event;
  }
  throw new DandelionError(
    'bad-event',
    'Send a CloudEvent: the headers ce-id, ce-source, ce-type and ce-specversion, or application/cloudevents+json.',
  );
}

/** Server-sent events: the state now and after each change. */
function streamPipeline(pipeline: Pipeline, reply: FastifyReply, streams: Set<FastifyReply>): void {
  const { raw } = reply;
  reply.hijack();
  raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': 'text/event-stream',
    'x-accel-buffering': 'no',
  });
  streams.add(reply);
  const send = (state: PipelineState) => raw.write(`data: ${JSON.stringify(state)}\n\n`);
  const end = pipeline.subscribe(send);
  const heartbeat = setInterval(() => raw.write(': still here\n\n'), heartbeatMs);
  raw.once('close', () => {
    clearInterval(heartbeat);
    end();
    streams.delete(reply);
  });
}
