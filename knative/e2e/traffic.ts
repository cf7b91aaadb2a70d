import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';

/** An answer, from the sending of the request to its last byte. */
export interface Answer {
  status: number;
  text: string;
  latencyMs: number;
}

/** The ingress of the cluster, as a client outside of it sees it. */
export interface Ingress {
  /** @returns status 0 when there was no answer, with the reason as text */
  post(host: string, body: Uint8Array, options?: { contentType?: string; path?: string }): Promise<Answer>;
  close(): Promise<void>;
}

const TIMEOUT_MS = 60_000;

/** @param address of the ingress, where the hosts of Services do not resolve to it by themselves */
export function openIngress(address: string | undefined): Ingress {
  const agent = new Agent({ headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  return {
    async post(host, body, { contentType = 'image/jpeg', path = '/' } = {}) {
      const startedAt = performance.now();
      const since = () => performance.now() - startedAt;
      try {
        const { statusCode, body: answer } = await request(new URL(path, address ?? `http://${host}`), {
          ...{ method: 'POST', dispatcher: agent, body },
          headers: { 'content-type': contentType, ...(address === undefined ? {} : { host }) },
        });
        const text = await answer.text();
        return { status: statusCode, text, latencyMs: since() };
      } catch (error) {
        return {
          status: 0,
          text: error instanceof Error ? error.message : String(error),
          latencyMs: since(),
        };
      }
    },
    close: () => agent.close(),
  };
}

/** What became of a steady stream of requests. */
export interface Stream {
  sent: number;
  /** Requests that were not answered with 200, with why. */
  lost: string[];
  latenciesMs: number[];
  /** Answers by the version that gave them. */
  versions: Map<string, number>;
}

/** Sends requests, a few at a time, until it is told to stop. */
export function startStream(
  send: () => Promise<Answer>,
  { atOnce, pauseMs }: { atOnce: number; pauseMs: number },
): { stop(): Promise<Stream>; sent(): number } {
  const stream: Stream = { sent: 0, lost: [], latenciesMs: [], versions: new Map() };
  let stopped = false;
  const client = async () => {
    while (!stopped) {
      stream.sent += 1;
      const { status, text, latencyMs } = await send();
      if (status !== 200) stream.lost.push(`${status}: ${text.slice(0, 200)}`);
      else {
        stream.latenciesMs.push(latencyMs);
        const version = /"version":"(\w+)"/.exec(text)?.[1] ?? 'unknown';
        stream.versions.set(version, (stream.versions.get(version) ?? 0) + 1);
      }
      await sleep(pauseMs);
    }
  };
  const clients = Array.from({ length: atOnce }, client);
  return {
    sent: () => stream.sent,
    async stop() {
      stopped = true;
      await Promise.all(clients);
      return stream;
    },
  };
}

/** The value below which a share of the sorted values lies; NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((first, second) => first - second);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}
