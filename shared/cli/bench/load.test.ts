import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LoadPlan, loadPlan, loadResult, requireAllAnswered, sendLoad } from './load.ts';
import { startWorker } from './worker.ts';

const body = new Uint8Array(Array.from({ length: 300 }, (_, index) => index % 256));
const seen = { requests: 0, damaged: 0, ids: new Set<string>(), sockets: new Set<Socket>() };
let failEvery = 0;

/** Counts what arrives, and notices a body that changed on its way. */
const server = createServer(async (request, response) => {
  const received = await buffer(request);
  seen.requests += 1;
  seen.sockets.add(request.socket);
  seen.ids.add(String(request.headers['x-id']));
  if (!received.equals(body)) seen.damaged += 1;
  response.statusCode = failEvery > 0 && seen.requests % failEvery === 0 ? 503 : 200;
  response.end('answer');
});

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(() => {
  server.close();
});

function plan(changes: Partial<LoadPlan> = {}): LoadPlan {
  failEvery = 0;
  Object.assign(seen, { requests: 0, damaged: 0, ids: new Set(), sockets: new Set() });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const counts = { connections: 4, requests: 200, warmUp: 10, timeLimitMs: 60_000 };
  return { url, ...counts, body, headers: { 'content-type': 'image/jpeg' }, ...changes };
}

describe('the load generator', () => {
  it('counts every answer, and sends the bytes as they are over the connections it was given', async () => {
    const result = await sendLoad(plan());
    expect(result).toMatchObject({ failures: 0 });
    expect(result.latenciesMs).toHaveLength(200);
    expect(result.perSecond).toBeGreaterThan(0);
    expect(seen).toMatchObject({ requests: 210, damaged: 0 });
    expect(seen.sockets.size).toBe(4);
  });

  it('counts what fails apart', async () => {
    const wanted = plan();
    failEvery = 10;
    const result = await sendLoad(wanted);
    expect(result).toMatchObject({ failures: 20, firstFailure: '503 answer' });
    expect(result.latenciesMs).toHaveLength(180);
    expect(() => requireAllAnswered('it', result)).toThrow('it failed 20 requests');
  });

  it('says so when nobody answers', async () => {
    const result = await sendLoad(plan({ url: 'http://127.0.0.1:9/', requests: 3, warmUp: 0 }));
    expect(result).toMatchObject({ failures: 3, latenciesMs: [] });
  });

  it('gives each request an id of its own where asked to', async () => {
    await sendLoad(plan({ countedHeader: 'x-id' }));
    expect(seen.ids.size).toBe(210);
  });

  it('sends to this machine only', () => {
    expect(loadPlan.safeParse(plan()).success).toBe(true);
    expect(loadPlan.safeParse(plan({ url: 'http://192.0.2.1/' })).success).toBe(false);
  });

  it('does the same in a process of its own', async () => {
    const worker = startWorker('load-worker.ts');
    try {
      const { latenciesMs } = await worker.ask(plan(), loadResult);
      expect(latenciesMs).toHaveLength(200);
      expect(seen).toMatchObject({ requests: 210, damaged: 0 });
      await expect(worker.ask({}, loadResult)).rejects.toThrow('load-worker.ts');
    } finally {
      await worker.close();
    }
  });
});
