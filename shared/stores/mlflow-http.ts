import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { TrackingSettings } from '../config.ts';
import { DandelionError } from '../errors.ts';
import { parseJson } from '../json.ts';
import { certificateFault } from './certificates.ts';

/** Bytes at once, or a stream that can be opened again when the first try is cut off. */
export type Content = Uint8Array | { sizeBytes: number; open: () => Readable };

/** One call of MLflow's REST API. */
export interface Call {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Below `/api/2.0/mlflow/`. */
  path: string;
  query?: Record<string, string>;
  body?: unknown;
  /** A refusal that is an answer, as "there is no such alias": the call then gives undefined. */
  unless?: (refusal: Refusal) => boolean;
}

/** MLflow's own words for what it does not do. */
export type Refusal = z.infer<typeof refusal>;
const refusal = z.object({ error_code: z.string(), message: z.string().default('') });

export interface MlflowHttp {
  /** Address of the server, without credentials: for people. */
  url: string;
  /** @throws DandelionError `store-unavailable`, `certificate-invalid`, `bad-config` or `store-refused` */
  call<Schema extends z.ZodType>(call: Call, schema: Schema): Promise<z.output<Schema> | undefined>;
  /** Writes a file through the server's artifact proxy; `path` is below its root. */
  upload(path: string, content: Content): Promise<void>;
  download(path: string): Promise<Uint8Array>;
  /** Repeats the work while the server is away or too busy, for as long as this client is patient. */
  patiently<Result>(work: () => Promise<Result>): Promise<Result>;
  /** The same server, asked once: for what must not be repeated blindly. */
  once: Omit<MlflowHttp, 'once' | 'patiently'>;
}

/** A server that is restarted is back by then; a step is repeated as a whole after that. */
const PATIENCE_MS = 30_000;
const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 4000;
const CALL_TIMEOUT_MS = 30_000;
const FILE_TIMEOUT_MS = 600_000;

/**
 * Speaks HTTP with an MLflow server: authentication, time limits, repeats, and errors that say what to do.
 *
 * Network faults, 429 and 5xx are repeated with growing pauses, everything else fails at once.
 */
export function openMlflowHttp(
  settings: TrackingSettings & { MLFLOW_TRACKING_URI: string },
  { patienceMs = PATIENCE_MS }: { patienceMs?: number } = {},
): MlflowHttp {
  const server = serverOf(settings);
  const artifacts = `${server.url}/api/2.0/mlflow-artifacts/artifacts`;
  const pathOf = (path: string) => path.split('/').map(encodeURIComponent).join('/');
  const once: MlflowHttp['once'] = {
    url: server.url,
    call: (call, schema) => callOnce(server, call, schema),
    async upload(path, content) {
      const init = { method: 'PUT', ...bodyOf(content) };
      const response = await send(server, `${artifacts}/${pathOf(path)}`, init, FILE_TIMEOUT_MS);
      await readFile(server, response, path);
    },
    async download(path) {
      const response = await send(server, `${artifacts}/${pathOf(path)}`, {}, FILE_TIMEOUT_MS);
      return readFile(server, response, path);
    },
  };
  const patiently = <Result>(work: () => Promise<Result>) => repeatWhileAway(work, patienceMs);
  return {
    url: server.url,
    call: (call, schema) => patiently(() => once.call(call, schema)),
    upload: (path, content) => patiently(() => once.upload(path, content)),
    download: (path) => patiently(() => once.download(path)),
    patiently,
    once,
  };
}

interface Server {
  url: string;
  authorization: string | undefined;
}

/** Credentials may stand in the address too, as MLflow's own clients allow; they are never shown. */
function serverOf(settings: TrackingSettings & { MLFLOW_TRACKING_URI: string }): Server {
  const address = new URL(settings.MLFLOW_TRACKING_URI);
  const user = settings.MLFLOW_TRACKING_USERNAME ?? decodeURIComponent(address.username);
  const password = settings.MLFLOW_TRACKING_PASSWORD ?? decodeURIComponent(address.password);
  const token = settings.MLFLOW_TRACKING_TOKEN;
  const basic = user === '' ? undefined : `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  return {
    url: `${address.origin}${address.pathname}`.replace(/\/+$/, ''),
    authorization: token === undefined ? basic : `Bearer ${token}`,
  };
}

async function repeatWhileAway<Result>(work: () => Promise<Result>, patienceMs: number): Promise<Result> {
  const deadline = performance.now() + patienceMs;
  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
    try {
      return await work();
    } catch (error) {
      const isAway = error instanceof DandelionError && error.code === 'store-unavailable';
      if (!isAway || performance.now() > deadline) throw error;
      // Spread, so that many who wait for one server do not come back all at once.
      await sleep(error.retryAfterMs ?? waitMs * (0.5 + Math.random() / 2));
    }
  }
}

async function callOnce<Schema extends z.ZodType>(
  server: Server,
  { method, path, query, body, unless }: Call,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  const search = query === undefined ? '' : `?${new URLSearchParams(query)}`;
  const init: RequestInit = {
    method,
    // Without it MLflow refuses even an empty body.
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  };
  const response = await send(server, `${server.url}/api/2.0/mlflow/${path}${search}`, init, CALL_TIMEOUT_MS);
  const text = Buffer.from(await readWhole(server, response)).toString('utf8');
  const json = parseJson(text);
  if (response.ok) {
    const answer = schema.safeParse(json);
    if (answer.success) return answer.data;
    throw notMlflow(server, `${path} was answered with ${excerpt(text)}`);
  }
  const refused = refusal.safeParse(json);
  if (refused.success && unless?.(refused.data) === true) return undefined;
  throw failureOf(server, response, { what: path, text, refused: refused.data });
}

function bodyOf(content: Content): RequestInit {
  if (content instanceof Uint8Array) return { body: new Uint8Array(content) };
  return {
    body: content.open() as unknown as ReadableStream,
    duplex: 'half',
    headers: { 'content-length': String(content.sizeBytes) },
  };
}

async function send(server: Server, url: string, init: RequestInit, timeoutMs: number): Promise<Response> {
  const headers = new Headers(init.headers);
  if (server.authorization !== undefined) headers.set('authorization', server.authorization);
  try {
    return await fetch(url, { ...init, headers, signal: AbortSignal.timeout(timeoutMs) });
  } catch (cause) {
    throw away(server, cause);
  }
}

async function readWhole(server: Server, response: Response): Promise<Uint8Array> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw away(server, cause);
  }
}

/** The bytes of a file, or of the empty answer to one that was written. */
async function readFile(server: Server, response: Response, path: string): Promise<Uint8Array> {
  const bytes = await readWhole(server, response);
  if (response.ok) return bytes;
  const text = Buffer.from(bytes).toString('utf8');
  const refused = refusal.safeParse(parseJson(text)).data;
  throw failureOf(server, response, { what: `the file ${path}`, text, refused });
}

function away(server: Server, thrown: unknown): DandelionError {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const inner = error.cause instanceof Error ? error.cause : error;
  const why = 'code' in inner && typeof inner.code === 'string' ? inner.code : inner.message;
  const certificate = certificateFault(why, inner.message);
  if (certificate !== undefined) {
    const sentence = `MLflow at ${server.url} ${certificate}.`;
    return new DandelionError('certificate-invalid', sentence, { cause: thrown, retryAfterMs: 2000 });
  }
  const cure = 'see that it runs and that MLFLOW_TRACKING_URI is its address, and try again in a moment';
  const sentence = `MLflow at ${server.url} does not answer (${why}): ${cure}.`;
  return new DandelionError('store-unavailable', sentence, { cause: thrown });
}

interface FailedAnswer {
  what: string;
  text: string;
  refused?: Refusal | undefined;
}

function failureOf(
  server: Server,
  response: Response,
  { what, text, refused }: FailedAnswer,
): DandelionError {
  const { status } = response;
  if (status === 429 || (status >= 500 && status !== 501)) {
    const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
    const sentence = `MLflow at ${server.url} is in trouble (${status} for ${what}: ${excerpt(text)}); try again in a moment.`;
    const retryAfterMs = Number.isFinite(seconds) ? Math.min(seconds * 1000, LONGEST_WAIT_MS) : undefined;
    return new DandelionError('store-unavailable', sentence, { ...(retryAfterMs ? { retryAfterMs } : {}) });
  }
  if (status === 401) {
    const advice =
      server.authorization === undefined
        ? 'wants credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN'
        : 'does not know these credentials: check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and MLFLOW_TRACKING_TOKEN';
    return new DandelionError('bad-config', `MLflow at ${server.url} ${advice}.`);
  }
  if (status === 403 && /host header/i.test(text)) {
    const { host } = new URL(server.url);
    return new DandelionError(
      'bad-config',
      `MLflow at ${server.url} refuses to be called "${host}": start it with --allowed-hosts ${host} (the names it had before, too: the option replaces them).`,
    );
  }
  if (status === 403) {
    return new DandelionError(
      'bad-config',
      `MLflow at ${server.url} does not allow ${what} to this account: ${excerpt(text)}`,
    );
  }
  if (refused !== undefined) {
    return new DandelionError(
      'store-refused',
      `MLflow at ${server.url} refused ${what}: ${refused.message} (${refused.error_code})`,
    );
  }
  return notMlflow(server, `${what} was answered with ${status}: ${excerpt(text)}`);
}

function notMlflow(server: Server, why: string): DandelionError {
  return new DandelionError(
    'bad-config',
    `What answers at ${server.url} is no MLflow server that this version knows (${why}). Check MLFLOW_TRACKING_URI.`,
  );
}

/** An HTML page as the words on it. */
function excerpt(text: string): string {
  const words = text
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim();
  return words.length > 200 ? `${words.slice(0, 200)}...` : words || 'nothing';
}
