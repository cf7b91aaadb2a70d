import { request } from 'node:http';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { checkOrigin, createRateLimit } from './security.ts';
import { createFunctionServer } from './server.ts';
import { isLoopback } from './settings.ts';
import { startFunction } from './testing.ts';
import type { FunctionModule } from './types.ts';

const running: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.close()));
});

const plain: FunctionModule = { handler: () => 'x' };
const open: FunctionModule = { handler: () => 'x', open: true };
const token = 'a-token-of-enough-length';

async function start(module: FunctionModule, env: Record<string, string> = {}) {
  const server = await startFunction(module, { env });
  running.push(server);
  return { ...server, url: server.url.replace('0.0.0.0', '127.0.0.1') };
}

/** `fetch` sets some headers itself, so requests of browsers are made by hand. */
function send(url: string, headers: Record<string, string>, method = 'POST'): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.on('error', reject).end();
  });
}

describe('exposure', () => {
  it('listens on this machine only unless told otherwise', async () => {
    const server = createFunctionServer(plain, { name: 'shy', env: { PORT: '0', LOG_LEVEL: 'silent' } });
    running.push(server);
    await server.listen();
    expect(server.app.server.address()).toMatchObject({ address: '127.0.0.1' });
  });

  it('refuses to be reachable from elsewhere without a token', () => {
    const create =
      (env: Record<string, string>, module = plain) =>
      () =>
        createFunctionServer(module, { name: 'f', env: { HOST: '0.0.0.0', LOG_LEVEL: 'silent', ...env } });
    expect(create({})).toThrow(expect.objectContaining({ code: 'bad-config' }));
    expect(create({ DANDELION_TOKEN: 'short' })).toThrow(expect.objectContaining({ code: 'bad-config' }));
    expect(create({ DANDELION_TOKEN: token })).not.toThrow();
    expect(create({ K_SERVICE: 'f' })).not.toThrow();
    expect(create({}, open)).not.toThrow();
  });

  it('knows which names mean this machine', () => {
    expect(['127.0.0.1', '127.1.2.3', '::1', '[::1]', 'localhost', 'a.localhost'].every(isLoopback)).toBe(
      true,
    );
    expect(['0.0.0.0', '::', '10.0.0.1', '127.evil.com', 'localhost.evil.com', ''].some(isLoopback)).toBe(
      false,
    );
  });
});

describe('token', () => {
  it('is asked for by everything but health', async () => {
    const { url } = await start(plain, { DANDELION_TOKEN: token });
    for (const path of ['/', '/metrics', '/anything']) {
      const response = await fetch(url + path);
      expect([response.status, await response.json()]).toMatchObject([401, { code: 'unauthorized' }]);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
    }
    for (const authorization of [`Bearer ${token}x`, `Basic ${token}`, 'Bearer', token]) {
      expect((await fetch(url, { headers: { authorization } })).status).toBe(401);
    }
    expect((await fetch(url, { headers: { authorization: `bearer ${token}` } })).status).toBe(200);
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
  });

  it('is not asked for by an open function, except for its metrics', async () => {
    const { url } = await start(open, { DANDELION_TOKEN: token });
    expect((await fetch(url)).status).toBe(200);
    expect((await fetch(`${url}/metrics`)).status).toBe(401);
  });
});

describe('pages of other sites', () => {
  it('may not change state', async () => {
    const { url, port } = await start(plain);
    expect(await send(url, { 'sec-fetch-site': 'cross-site' })).toBe(403);
    expect(await send(url, { origin: 'https://evil.com' })).toBe(403);
    expect(await send(url, { origin: 'null' })).toBe(403);
    expect(await send(url, { origin: 'http://localhost:1', 'sec-fetch-site': 'same-site' })).toBe(403);
    expect(await send(url, { origin: `http://127.0.0.1:${port}`, 'sec-fetch-site': 'same-origin' })).toBe(
      200,
    );
    expect(await send(url, { origin: `http://127.0.0.1:${port}` })).toBe(200);
    expect(await send(url, {})).toBe(200);
    expect(await send(url, { 'sec-fetch-site': 'cross-site' }, 'GET')).toBe(200);
  });

  it('may call an open function', async () => {
    const { url } = await start(open);
    expect(await send(url, { origin: 'https://elsewhere.com', 'sec-fetch-site': 'cross-site' })).toBe(200);
  });

  it('do not get in by a name that leads to this machine', () => {
    const rebound = {
      host: 'evil.com:8080',
      origin: 'http://evil.com:8080',
      'sec-fetch-site': 'same-origin',
    };
    expect(() => checkOrigin('POST', rebound, true)).toThrow(expect.objectContaining({ code: 'forbidden' }));
    expect(() => checkOrigin('POST', rebound, false)).not.toThrow();
  });

  it('are told apart from our own page behind a gateway', () => {
    const own = {
      host: '127.0.0.1:4000',
      'x-forwarded-host': 'localhost:8080',
      origin: 'http://localhost:8080',
    };
    expect(() => checkOrigin('POST', own, true)).not.toThrow();
  });
});

describe('rate', () => {
  it('is limited for each client of an open function that others can reach', async () => {
    const { url } = await start(open, { HOST: '0.0.0.0', RATE_LIMIT_PER_SECOND: '1' });
    const responses = await Promise.all(Array.from({ length: 20 }, () => fetch(url)));
    const statuses = responses.map(({ status }) => status);
    expect(statuses).toContain(200);
    expect(statuses).toContain(429);
    expect(responses.find(({ status }) => status === 429)?.headers.get('retry-after')).toBe('1');
    expect((await fetch(`${url}/health/live`)).status).toBe(200);
  });

  it('lets one client not use up the share of another', () => {
    const check = createRateLimit(1);
    const use = (client: string) => () => check(client);
    use('a')();
    use('a')();
    expect(use('a')).toThrow(expect.objectContaining({ code: 'too-many-requests' }));
    expect(use('b')).not.toThrow();
  });

  it('goes on at its rate for a client that asks faster, and does not shut it out', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const check = createRateLimit(10);
    let taken = 0;
    for (let call = 0; call < 200; call += 1) {
      vi.advanceTimersByTime(50);
      try {
        check('eager');
        taken += 1;
      } catch {
        // Counted by what is left.
      }
    }
    vi.useRealTimers();
    // Ten seconds at ten a second, and the burst.
    expect(taken).toBeGreaterThanOrEqual(100);
    expect(taken).toBeLessThanOrEqual(120);
  });
});

it('sends headers that keep browsers from guessing, framing and telling', async () => {
  const { url } = await start(plain);
  const { headers } = await fetch(url);
  expect(headers.get('x-content-type-options')).toBe('nosniff');
  expect(headers.get('x-frame-options')).toBe('DENY');
  expect(headers.get('referrer-policy')).toBe('no-referrer');
});
