import type { Event } from '../events.ts';
import { encodeBinary } from './cloudevents.ts';
import { isLoopback, type RuntimeSettings } from './settings.ts';

/** What a sink made of an event. */
export type SinkAnswer =
  | { kind: 'taken' }
  /** Worth another try; not before `retryAfterMs` where the sink names a time. */
  | { kind: 'failed'; reason: string; retryAfterMs: number }
  /** Never to be tried again. */
  | { kind: 'refused'; reason: string };

/** Where notices go: posts one event, never throws. */
export type Sink = (event: Event) => Promise<SinkAnswer>;

export interface SinkOptions {
  /** How long one try waits for the answer. */
  answerWithinMs?: number;
  /** Ends a try. */
  signal?: AbortSignal;
}

/** Besides everything from 500 on. */
const RETRIED_STATUSES = new Set([404, 408, 409, 429]);
const FIRST_BACK_OFF_MS = 200;
const LONGEST_BACK_OFF_MS = 60_000;
const ANSWER_WITHIN_MS = 10_000;
/** Whatever the sink asks for; timers of Node.js that wait for weeks fire at once. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/**
 * The sink that Knative's SinkBinding names by K_SINK, with the extensions of K_CE_OVERRIDES set on every event;
 * `undefined` where none is bound.
 *
 * Source: Knative Eventing, SinkBinding; CloudEvent overrides.
 */
export function createSink(
  settings: RuntimeSettings,
  // A claim in the outbox must outlive the try.
  { answerWithinMs = Math.min(ANSWER_WITHIN_MS, settings.LEASE_MS / 2), signal }: SinkOptions = {},
): Sink | undefined {
  const { K_SINK: url, K_CE_OVERRIDES: overrides } = settings;
  if (url === undefined) return undefined;
  // A broker of this machine is the local platform's, which may ask for the token that it gave us.
  const ownToken = isLoopback(new URL(url).hostname) ? settings.DANDELION_TOKEN : undefined;
  const token = settings.K_SINK_TOKEN ?? ownToken;
  return async (event) => {
    try {
      const { headers, body } = encodeBinary({ ...event, ...overrides.extensions });
      if (token !== undefined) headers.authorization = `Bearer ${token}`;
      const response = await fetch(url, {
        ...{ method: 'POST', headers, redirect: 'manual', signal: endOf(answerWithinMs, signal) },
        body: body === undefined ? null : new Uint8Array(body),
      });
      await response.arrayBuffer();
      return judge(response.status, response.headers.get('retry-after'));
    } catch (error) {
      return { kind: 'failed', reason: reasonOf(error), retryAfterMs: 0 };
    }
  };
}

function endOf(timeoutMs: number, signal: AbortSignal | undefined): AbortSignal {
  const late = AbortSignal.timeout(timeoutMs);
  return signal === undefined ? late : AbortSignal.any([late, signal]);
}

/** The wait after that many tries of one event: doubling from 0.2 s, as brokers do, up to a minute. */
export function backOffMs(tries: number): number {
  return Math.min(LONGEST_BACK_OFF_MS, FIRST_BACK_OFF_MS * 2 ** (tries - 1));
}

/** Source: Knative Eventing, delivery: these statuses are retried, any other 4xx is final. */
function judge(status: number, retryAfter: string | null): SinkAnswer {
  if (status >= 200 && status < 300) return { kind: 'taken' };
  const reason = `the sink answered ${status}`;
  const isFinal = status >= 400 && status < 500 && !RETRIED_STATUSES.has(status);
  if (isFinal) return { kind: 'refused', reason };
  return { kind: 'failed', reason, retryAfterMs: readRetryAfter(retryAfter) };
}

/** `fetch` hides why it failed in the cause. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error ? inner.message || inner.name : String(inner);
}

/** The header's seconds, in milliseconds; 0 for a date, since the clocks of two machines differ. */
function readRetryAfter(header: string | null): number {
  const askedMs = Number(header ?? 0) * 1000;
  return Number.isNaN(askedMs) ? 0 : Math.min(Math.max(askedMs, 0), LONGEST_RETRY_AFTER_MS);
}
