import { performance } from 'node:perf_hooks';
import { Client } from 'undici';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { isLoopback } from '../../function/settings.ts';

/** One burst of requests: a closed loop, each connection sends its next request when it has its answer. */
export const loadPlan = z.object({
  /** Only servers on this machine: a load generator must never reach another by mistake. */
  url: z.url().refine((url) => isLoopback(new URL(url).hostname), 'use an address of this machine'),
  connections: z.number().int().positive(),
  /** Requests that are measured, over all connections. */
  requests: z.number().int().positive(),
  /** Requests before them that are not. */
  warmUp: z.number().int().nonnegative(),
  /** No request is begun after this long. */
  timeLimitMs: z.number().positive(),
  body: z.instanceof(Uint8Array),
  headers: z.record(z.string(), z.string()),
  /** A header that gets a new value with each request, such as `ce-id`. */
  countedHeader: z.string().optional(),
});
export type LoadPlan = z.infer<typeof loadPlan>;

export const loadResult = z.object({
  /** Of each answer with status 200, in milliseconds from the request's start to the end of its answer. */
  latenciesMs: z.array(z.number()),
  /** Answers with status 200 a second, from the first measured request's start to the last one's answer. */
  perSecond: z.number(),
  /** Answers with any other status, and requests without one. */
  failures: z.number(),
  firstFailure: z.string().optional(),
});
export type LoadResult = z.infer<typeof loadResult>;

interface Tally {
  begun: number;
  latenciesMs: number[];
  firstStart: number;
  lastEnd: number;
  failures: number;
  firstFailure?: string;
}

/** Sends the burst over keep-alive connections, one client each, without pipelining. */
export async function sendLoad(plan: LoadPlan): Promise<LoadResult> {
  const { origin } = new URL(plan.url);
  const clients = Array.from({ length: plan.connections }, () => new Client(origin, { pipelining: 1 }));
  try {
    await inTurns(clients, { ...plan, requests: plan.warmUp });
    const tally = await inTurns(clients, plan);
    const { latenciesMs, failures, firstFailure, firstStart, lastEnd } = tally;
    const perSecond = (latenciesMs.length / Math.max(1e-9, lastEnd - firstStart)) * 1000;
    return { latenciesMs, perSecond, failures, ...(firstFailure === undefined ? {} : { firstFailure }) };
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}

/** @throws DandelionError `upstream-unavailable` when any request of a burst failed: such figures mean nothing */
export function requireAllAnswered(server: string, { failures, firstFailure }: LoadResult): void {
  if (failures === 0) return;
  throw new DandelionError(
    'upstream-unavailable',
    `${server} failed ${failures} requests, the first with: ${firstFailure}`,
  );
}

async function inTurns(clients: readonly Client[], plan: Omit<LoadPlan, 'warmUp'>): Promise<Tally> {
  const start = performance.now();
  const tally: Tally = { begun: 0, latenciesMs: [], firstStart: start, lastEnd: start, failures: 0 };
  await Promise.all(clients.map((client) => keepSending(client, plan, tally, start + plan.timeLimitMs)));
  return tally;
}

/** Makes ids differ between bursts and processes. */
const idPrefix = `${process.pid}-${Date.now()}`;
let counted = 0;

async function keepSending(
  client: Client,
  { url, requests, body, headers, countedHeader }: Omit<LoadPlan, 'warmUp'>,
  tally: Tally,
  deadline: number,
): Promise<void> {
  const { pathname, search } = new URL(url);
  while (tally.begun < requests && performance.now() < deadline) {
    tally.begun += 1;
    counted += 1;
    const ownHeaders =
      countedHeader === undefined ? headers : { ...headers, [countedHeader]: `${idPrefix}-${counted}` };
    const startedAt = performance.now();
    const failure = await send(client, { path: pathname + search, body, headers: ownHeaders });
    tally.lastEnd = performance.now();
    if (failure === undefined) tally.latenciesMs.push(tally.lastEnd - startedAt);
    else {
      tally.failures += 1;
      tally.firstFailure ??= failure;
    }
  }
}

/** @returns what went wrong, if anything */
async function send(
  client: Client,
  request: { path: string; body: Uint8Array; headers: Record<string, string> },
): Promise<string | undefined> {
  try {
    const { statusCode, body } = await client.request({ method: 'POST', ...request });
    const text = await body.text();
    return statusCode === 200 ? undefined : `${statusCode} ${text.slice(0, 300)}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
