import type { Logger } from 'pino';
import type { Environment } from '../config.ts';
import type { Event, EventData, EventType } from '../events.ts';

/** What a handler receives: OpenFaaS's request fields, and the CloudEvent where the request carries one. */
export interface FunctionEvent {
  /** Parsed by media type: JSON to a value, `text/*` to a string, anything else stays a Buffer. */
  body: unknown;
  /** The body's bytes as they came. */
  rawBody: Buffer;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Address of who asks, as far as trusted proxies tell (TRUSTED_PROXIES); absent for an event out of the ledger. */
  client?: string;
  method: string;
  /** Path without the query, always with a leading slash. */
  path: string;
  query: Readonly<Record<string, string | string[] | undefined>>;
  cloudEvent?: Event;
}

/** Something worth telling that starts no pipeline step; the runtime makes a CloudEvent of it. */
export interface Notice {
  type: string;
  subject?: string;
  /** ISO 8601, UTC; now unless given. */
  time?: string;
  /** JSON, unless it is bytes or `datacontenttype` says otherwise. */
  data?: unknown;
  datacontenttype?: string;
}

/** What a handler may do besides returning a value. */
export interface FunctionContext {
  readonly functionName: string;
  /** Aborted when the client is gone, the time limit is reached, the lease is lost or the function stops. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** Attempt of a durable run, from 1; 1 for everything else. */
  readonly attempt: number;
  /** W3C trace context of this invocation. */
  readonly traceparent: string;
  /** Sets the HTTP status of the answer (plain HTTP only). */
  status(code: number): FunctionContext;
  /** Adds headers to the answer (plain HTTP only). */
  headers(values: Record<string, string>): FunctionContext;
  /** Answers with `value`; the same as returning it. */
  succeed(value: unknown): unknown;
  /** Answers with a problem; the same as throwing. */
  fail(error: unknown): never;
  /** Reports how far a durable step is; shown by `/runs/{id}` and the page. Cheap: writes are throttled. */
  progress(done: number, total: number, note?: string): void;
  /**
   * Sends a notice to the sink (K_SINK), apart from the answer and without waiting for it. A durable step's notices
   * are written with its outcome and delivered at least once; those of an attempt that will be repeated are not
   * sent. Other functions send from a bounded memory. A repeat carries the same id.
   *
   * @throws DandelionError `bad-result` when it makes no valid CloudEvent
   */
  emit(notice: Notice): void;
  /** The result event of a durable step: id derived from function and input, source and trace filled in. */
  result<Type extends EventType>(type: Type, data: EventData<Type>, subject?: string): Event;
}

/** A figure that is asked for at each scrape. */
export interface GaugeSource {
  /** Starts with `dandelion_`. */
  name: `dandelion_${string}`;
  help: string;
  labelNames: string[];
  /** Every sample there is now; one that fails leaves the figure out of this scrape. */
  read(): Promise<{ labels: Record<string, string>; value: number }[]>;
}

/** What `init` receives. */
export interface InitContext {
  readonly functionName: string;
  readonly env: Environment;
  readonly log: Logger;
  /** Sends a notice that belongs to no request, from memory; works until `shutdown` has returned. */
  emit(notice: Notice): void;
  /** Adds a figure of the function's own to `/metrics`. */
  gauge(gauge: GaugeSource): void;
}

/** What a route of a durable function may do besides returning a value. */
export interface RouteContext
  extends Pick<FunctionContext, 'functionName' | 'signal' | 'log' | 'traceparent'> {
  /** Starts the run of an event that this function takes, or joins the one it has; resolves once it is in the ledger. */
  start(event: Event): Promise<{ id: string }>;
}

/** Answers a plain POST with JSON, or with 204 where it returns nothing. */
export type RouteHandler = (event: FunctionEvent, context: RouteContext) => unknown | Promise<unknown>;

/** The whole surface of a function: what `functions/<name>/handler.ts` exports. */
export interface FunctionModule {
  handler(event: FunctionEvent, context: FunctionContext): unknown | Promise<unknown>;
  /** Runs once before the function is ready: settings, connections, models. */
  init?(context: InitContext): void | Promise<void>;
  /** Asked by readiness probes once `init` is done. */
  ready?(): boolean | Promise<boolean>;
  /** Runs after the last request was answered; notices that it emits are still sent. */
  shutdown?(): void | Promise<void>;
  /** `true`: a pipeline step; each event is written to the ledger and worked once. */
  durable?: true;
  /** Of a durable function: paths for what is no CloudEvent, such as the webhooks of others. */
  routes?: Readonly<Record<`/${string}`, RouteHandler>>;
  /**
   * `true`: takes batches of CloudEvents (`application/cloudevents-batch+json`); the handler still gets one event at a
   * time, and the answer tells what became of each. Without it a batch is refused with 415.
   */
  batch?: true;
  /** Notices kept in memory while the sink does not take them, unless NOTICE_BUFFER is set. Default 1000. */
  noticeBuffer?: number;
  /** Largest body accepted; the runtime's default is 1 MiB. */
  bodyLimitBytes?: number;
  /** Requests worked at the same time; more are answered 503 with `Retry-After`. Default 64. */
  maxInFlight?: number;
  /** Longest time one request may take. Default 60 s; durable steps 3600 s. */
  timeLimitMs?: number;
  /** `true`: may be called without a token when bound beyond loopback (predict, webapp). */
  open?: true;
  /** Of an open function: paths that want the token all the same, with everything under them. */
  guarded?: readonly `/${string}`[];
}
