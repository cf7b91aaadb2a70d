import { once } from 'node:events';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { startFunction } from './testing.ts';
import type { FunctionModule } from './types.ts';

const running: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.close()));
});

async function start(module: FunctionModule, env: Record<string, string> = {}) {
  const server = await startFunction(module, { env });
  running.push(server);
  return server;
}

/** A gate that handlers wait at until the test opens it. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe('body', () => {
  it('is refused above the limit, whether its length is announced or not', async () => {
    const { url } = await start({ handler: () => 'x', bodyLimitBytes: 10 });
    const chunked = new ReadableStream({
      start(controller) {
        controller.enqueue(new Uint8Array(11));
        controller.close();
      },
    });
    for (const body of [new Uint8Array(11), chunked]) {
      const response = await fetch(url, { method: 'POST', body, duplex: 'half' } as RequestInit);
      expect([response.status, await response.json()]).toMatchObject([413, { code: 'body-too-large' }]);
    }
    expect((await fetch(url, { method: 'POST', body: new Uint8Array(10) })).status).toBe(200);
  });
});

describe('a body beyond the limit', () => {
  it('is read to its end and dropped, so that whoever sends it sees the answer', async () => {
    const { port } = await start({ handler: () => 'x', bodyLimitBytes: 10 });
    const socket = connect(port, '127.0.0.1');
    const answered = once(socket, 'data');
    const sizeBytes = 20_000_000;
    socket.write(`POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${sizeBytes}\r\n\r\n`);
    const [answer] = await answered;
    expect(String(answer)).toMatch(/^HTTP\/1.1 413 /);
    await pipeline(Readable.from([Buffer.alloc(sizeBytes)]), socket);
  });
});

describe('in flight', () => {
  it('refuses more than its places, while health and metrics answer', async () => {
    const { open, opened } = gate();
    const { url } = await start({ handler: () => opened.then(() => 'x'), maxInFlight: 2 });
    const first = [fetch(url), fetch(url)];
    const metric = async () =>
      (await (await fetch(`${url}/metrics`)).text()).match(/^faas_inflight.* (\d+)$/m)?.[1];
    await expect.poll(metric).toBe('2');
    const third = await fetch(url);
    expect([third.status, third.headers.get('retry-after')]).toEqual([503, '1']);
    expect(await third.json()).toMatchObject({ code: 'overloaded' });
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
    open();
    for (const response of await Promise.all(first)) expect(response.status).toBe(200);
    expect((await fetch(url)).status).toBe(200);
  });

  it('keeps a place taken while a handler works on after its client left', async () => {
    const { open, opened } = gate();
    const { url } = await start({ handler: () => opened.then(() => 'x'), maxInFlight: 1 });
    const client = new AbortController();
    const left = fetch(url, { signal: client.signal }).catch(() => 'left');
    await expect.poll(async () => (await fetch(url)).status).toBe(503);
    client.abort();
    await left;
    expect((await fetch(url)).status).toBe(503);
    open();
    await expect.poll(async () => (await fetch(url)).status).toBe(200);
  });
});

describe('time', () => {
  it('tells the handler to stop and answers 503 even if it does not listen', async () => {
    const reasons: unknown[] = [];
    const { open, opened } = gate();
    const handler: FunctionModule['handler'] = (_event, { signal }) => {
      signal.addEventListener('abort', () => reasons.push(signal.reason));
      return opened;
    };
    const { url } = await start({ handler, timeLimitMs: 50 });
    const response = await fetch(url);
    expect([response.status, await response.json()]).toMatchObject([503, { code: 'time-limit' }]);
    expect(reasons).toMatchObject([{ code: 'time-limit' }]);
    open();
  });

  it('tells the handler when its client has left', async () => {
    const aborted = gate();
    const started = gate();
    const handler: FunctionModule['handler'] = async (_event, { signal }) => {
      signal.addEventListener('abort', () => aborted.open());
      started.open();
      await aborted.opened;
    };
    const { url } = await start({ handler });
    const client = new AbortController();
    const left = fetch(url, { signal: client.signal }).catch(() => 'left');
    await started.opened;
    client.abort();
    await aborted.opened;
    expect(await left).toBe('left');
  });
});

describe('event loop', () => {
  it('refuses work while it lags, and takes it again after', async () => {
    const handler: FunctionModule['handler'] = async (event) => {
      for (let turn = 0; event.path === '/block' && turn < 40; turn++) {
        const until = performance.now() + 50;
        while (performance.now() < until);
        await delay(1);
      }
      return 'x';
    };
    const env = { EVENT_LOOP_DELAY_LIMIT_MS: '20', EVENT_LOOP_SAMPLE_MS: '100' };
    const { url } = await start({ handler }, env);
    const blocking = fetch(`${url}/block`);
    const codes: number[] = [];
    do codes.push((await fetch(url)).status);
    while (codes.at(-1) !== 503 && codes.length < 1000);
    expect(codes.at(-1)).toBe(503);
    expect((await fetch(`${url}/health/live`)).status).toBe(200);
    await blocking;
    await expect.poll(async () => (await fetch(url)).status).toBe(200);
  });
});

describe('slow clients', () => {
  it.each([
    ['headers', 'POST / HTTP/1.1\r\nHost: x\r\nX-Slow: '],
    ['its body', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12'],
  ])('cuts off a client that does not finish %s', async (_name, beginning) => {
    const { port } = await start(
      { handler: () => 'x' },
      { HEADERS_TIMEOUT_MS: '200', REQUEST_TIMEOUT_MS: '400' },
    );
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(beginning);
    const chunks = await socket.toArray();
    expect(Buffer.concat(chunks).toString()).toMatch(/^(HTTP\/1.1 408|$)/);
  });
});
