import { afterEach, describe, expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import { startFunction } from './testing.ts';
import type { FunctionModule } from './types.ts';

const running: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const server of running.splice(0)) await server.close();
});

const open: FunctionModule = {
  open: true,
  handler(event) {
    if (event.path === '/bad') throw new DandelionError('bad-data', 'No.');
    return event.method;
  },
};
const page = 'https://flowers.example';

async function start(CORS_ORIGINS: string, module = open) {
  const server = await startFunction(module, { env: { CORS_ORIGINS } });
  running.push(server);
  return server.url;
}

const preflight = (url: string, origin = page) =>
  fetch(url, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type,ce-id',
    },
  });
const call = (url: string, origin = page) => fetch(url, { method: 'POST', body: 'x', headers: { origin } });

describe('a listed origin', () => {
  it.each([page, `https://other.example, ${page}/`])(
    'may ask and call, when the list is %s',
    async (origins) => {
      const url = await start(origins);
      const asked = await preflight(url);
      expect([asked.status, await asked.text()]).toEqual([204, '']);
      expect(Object.fromEntries(asked.headers)).toMatchObject({
        'access-control-allow-origin': page,
        'access-control-allow-methods': 'GET, HEAD, POST',
        'access-control-allow-headers': 'content-type,ce-id',
        'access-control-max-age': '600',
        vary: 'origin',
      });
      const called = await call(url);
      expect([called.status, called.headers.get('access-control-allow-origin')]).toEqual([200, page]);
      expect(called.headers.get('access-control-expose-headers')).toContain('retry-after');
    },
  );

  it('may read why a call failed', async () => {
    const url = await start(page);
    const { status, headers } = await call(`${url}/bad`);
    expect([status, headers.get('access-control-allow-origin')]).toEqual([422, page]);
  });
});

describe('any other origin', () => {
  it.each(['https://evil.example', 'http://flowers.example', 'https://flowers.example.evil.example', 'null'])(
    'is told nothing: %s',
    async (origin) => {
      const url = await start(page);
      for (const response of [await preflight(url, origin), await call(url, origin)]) {
        expect(response.headers.get('access-control-allow-origin')).toBeNull();
        expect(response.headers.get('vary')).toBe('origin');
      }
    },
  );

  it('may call where all may', async () => {
    const url = await start('*');
    for (const response of [await preflight(url), await call(url)]) {
      expect(response.headers.get('access-control-allow-origin')).toBe('*');
      expect(response.headers.get('access-control-allow-credentials')).toBeNull();
    }
  });
});

describe('unless origins are listed for an open function', () => {
  it.each<[string, string, FunctionModule]>([
    ['no list', '', open],
    ['a function that is not open', page, { handler: open.handler }],
    ['a function that is not open, for all', '*', { handler: open.handler }],
  ])('nobody is told anything: %s', async (_name, origins, module) => {
    const url = await start(origins, module);
    const asked = await preflight(url);
    expect([asked.status, await asked.text()]).toEqual([200, 'OPTIONS']);
    expect(asked.headers.get('access-control-allow-origin')).toBeNull();
  });

  it.each(['flowers.example', 'https://flowers.example/page', 'https://'])(
    'refuses the list %j',
    async (origins) => {
      await expect(start(origins)).rejects.toMatchObject({ code: 'bad-config' });
    },
  );
});
