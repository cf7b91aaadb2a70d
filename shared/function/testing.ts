import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { Environment } from '../config.ts';
import type { Problem } from '../errors.ts';
import type { Event } from '../events.ts';
import type { StepProgress } from '../stores/steps.ts';
import { mediaTypeOf, parseBody } from './cloudevents.ts';
import { type Answer, createNotice, emptyAnswer, invokeHandler, stepResult } from './context.ts';
import { createLogger, functionLogger } from './log.ts';
import { type EncodedReply, encodeAnswer, encodeProblem } from './reply.ts';
import { storedRequest } from './request.ts';
import { createFunctionServer } from './server.ts';
import { continueTrace, type Trace } from './trace.ts';
import type { FunctionEvent, FunctionModule, Notice } from './types.ts';

export interface InvokeOptions {
  /** Sends a CloudEvent… */
  event?: Event;
  /** …or a plain request; `body` may be bytes, text or a value for JSON. */
  request?: {
    method?: string;
    path?: string;
    headers?: Record<string, string>;
    query?: Record<string, string>;
    body?: unknown;
  };
  env?: Environment;
  name?: string;
  signal?: AbortSignal;
}

/** What came back: one of `body`, `event` and `problem`, or nothing. */
export interface Invoked {
  status: number;
  headers: Record<string, string>;
  body?: unknown;
  event?: Event;
  problem?: Problem;
  progress: StepProgress[];
  /** What was emitted, as it would go to the sink. */
  notices: Event[];
}

const DEFAULT_NAME = 'function-under-test';

/** Runs `init`, the handler once and `shutdown`, without a server or a ledger. */
export async function invoke(module: FunctionModule, options: InvokeOptions = {}): Promise<Invoked> {
  const name = options.name ?? DEFAULT_NAME;
  const log = quietLogger(name);
  const progress: StepProgress[] = [];
  const notices: Event[] = [];
  const draft = emptyAnswer();
  const trace = continueTrace(options.event?.traceparent);
  const event = options.event === undefined ? plainRequest(options.request) : storedRequest(options.event);
  const emit = (notice: Notice) => void notices.push(createNotice(name, notice));
  await module.init?.({ functionName: name, env: options.env ?? {}, log, emit, gauge: () => {} });
  try {
    const invocation = {
      ...{ functionName: name, event, trace, log, attempt: 1 },
      signal: options.signal ?? new AbortController().signal,
      onProgress: (report: StepProgress) => progress.push(report),
      onNotice: (notice: Event) => notices.push(notice),
    };
    const answer = await invokeHandler(module, invocation, draft);
    return { ...describe(module, name, options.event, answer, trace), progress, notices };
  } catch (error) {
    const { status, headers, problem } = encodeProblem(error, trace.traceId, draft.headers);
    return { status, headers, problem, progress, notices };
  } finally {
    await module.shutdown?.();
  }
}

/** Starts a real server on a free port of this machine. `env` adds to the defaults; logs only what goes wrong. */
export async function startFunction(
  module: FunctionModule,
  options: { env?: Environment; name?: string; logger?: Logger } = {},
): Promise<{ url: string; port: number; close(): Promise<void> }> {
  const name = options.name ?? DEFAULT_NAME;
  const env = { PORT: '0', HOST: '127.0.0.1', LOG_LEVEL: 'fatal', INSTANCE_ID: randomUUID(), ...options.env };
  const server = createFunctionServer(module, { name, env, logger: options.logger });
  const { url, port } = await server.listen();
  try {
    await server.init();
  } catch (error) {
    await server.close();
    throw error;
  }
  return { url, port, close: () => server.close() };
}

function describe(
  module: FunctionModule,
  name: string,
  input: Event | undefined,
  answer: Answer,
  trace: Trace,
): Omit<Invoked, 'progress' | 'notices'> {
  const isStep = module.durable === true && input !== undefined;
  const value = isStep ? stepResult(name, input, trace, answer.value) : answer.value;
  const { status, headers, body } = encodeAnswer(
    { ...answer, value },
    input === undefined ? 'plain' : 'binary',
  );
  if (body === undefined) return { status, headers };
  if (input !== undefined) return { status, headers, event: value as Event };
  return { status, headers, body: readBody(headers, body) };
}

function readBody(headers: EncodedReply['headers'], body: Buffer | string): unknown {
  return parseBody(mediaTypeOf(headers['content-type']), Buffer.from(body));
}

function plainRequest(request: InvokeOptions['request'] = {}): FunctionEvent {
  const {
    body,
    headers = {},
    method = body === undefined ? 'GET' : 'POST',
    path = '/',
    query = {},
  } = request;
  const isRaw = body instanceof Uint8Array || typeof body === 'string';
  const rawBody = isRaw ? Buffer.from(body) : Buffer.from(JSON.stringify(body) ?? '');
  const lowerCase = Object.fromEntries(
    Object.entries(headers).map(([key, value]) => [key.toLowerCase(), value]),
  );
  const contentType = lowerCase['content-type'] ?? (isRaw ? undefined : 'application/json');
  const parsed = parseBody(mediaTypeOf(contentType), rawBody);
  return { body: parsed, rawBody, headers: lowerCase, method, path, query };
}

function quietLogger(name: string): Logger {
  return functionLogger(createLogger({ name, level: 'silent' }), name);
}
