import { Agent, request } from 'undici';
import { z } from 'zod';
import { DandelionError, type Problem, toProblem } from '../errors.ts';
import type { Event } from '../events.ts';
import { decodeEvents, encodeBinary } from '../function/cloudevents.ts';
import type { Delivery } from '../function/triggers.ts';
import { keptBytes } from './event-bytes.ts';

/** What became of one try to bring an event to a function. */
export type Outcome =
  | { kind: 'answered'; reply: Event | undefined }
  /** Worth another try. */
  | { kind: 'failed'; problem: Problem; retryAfterMs?: number }
  /** Never to be tried again; `isBuried` when it lies with the dead letters already. */
  | { kind: 'refused'; problem: Problem; isBuried?: true };

/** Knative retries these and everything from 500 on; any other 4xx is final. */
const retriedStatuses = new Set([404, 408, 409, 429]);

/** A step may work for an hour before its answer begins. */
const patient = new Agent({ headersTimeout: 0, bodyTimeout: 0 });

const problemDocument = z.looseObject({
  type: z.string().default('about:blank'),
  title: z.string().default(''),
  detail: z.string().default(''),
  code: z.string().default('internal'),
});

/**
 * Posts an event to a function (binary mode) and reads its reply. Never throws for what the network or the function
 * does: that is the outcome.
 *
 * Source: Knative Eventing, delivery: which statuses are retried, and that a reply is one CloudEvent or empty.
 */
export async function deliver(
  event: Event,
  url: string,
  { token, path = '/' }: { token?: string; path?: string } = {},
): Promise<Outcome> {
  const { headers, body } = encodeBinary(event, keptBytes(event));
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  let status: number;
  let replyHeaders: Record<string, string | string[] | undefined>;
  let bytes: Buffer;
  try {
    const response = await request(`${url}${path}`, {
      method: 'POST',
      headers: { ...headers, ...authorization },
      body: body ?? null,
      dispatcher: patient,
    });
    status = response.statusCode;
    replyHeaders = response.headers;
    bytes = Buffer.from(await response.body.arrayBuffer());
  } catch (error) {
    const why = error instanceof Error ? error.message || error.name : String(error);
    const broken = new DandelionError(
      'upstream-unavailable',
      `The connection to the function broke: ${why}.`,
    );
    return { kind: 'failed', problem: toProblem(broken) };
  }
  if (status >= 200 && status < 300) return readReply(replyHeaders, bytes);
  const problem = readProblem(status, bytes);
  if (status < 500 && !retriedStatuses.has(status)) return { kind: 'refused', problem };
  const retryAfterMs = Number(replyHeaders['retry-after']) * 1000;
  return { kind: 'failed', problem, retryAfterMs: Number.isFinite(retryAfterMs) ? retryAfterMs : undefined };
}

/** The wait before try number `retries` + 2, in ms. */
export function backOffMs({ backoffPolicy, backoffDelayMs }: Delivery, retries: number): number {
  return backoffPolicy === 'linear' ? backoffDelayMs * (retries + 1) : backoffDelayMs * 2 ** retries;
}

function readReply(headers: Record<string, string | string[] | undefined>, bytes: Buffer): Outcome {
  try {
    const message = decodeEvents(headers, bytes);
    const [reply] = message?.events ?? [];
    if (message !== undefined && message.mode !== 'batched' && reply !== undefined) {
      return { kind: 'answered', reply };
    }
    if (bytes.length === 0) return { kind: 'answered', reply: undefined };
    throw new DandelionError('bad-result', 'The function answered an event with something that is no event.');
  } catch (error) {
    return { kind: 'failed', problem: toProblem(error) };
  }
}

function readProblem(status: number, bytes: Buffer): Problem {
  const fallback = {
    type: 'about:blank',
    title: `HTTP ${status}`,
    detail: bytes.toString().slice(0, 500),
    status,
  };
  try {
    const parsed = problemDocument.safeParse(JSON.parse(bytes.toString()));
    if (parsed.success) return { ...parsed.data, status } as Problem;
  } catch {
    // Not every server in between speaks JSON.
  }
  return { ...fallback, code: 'internal' };
}
