import { afterEach, expect, test } from 'vitest';
import { readRuntimeSettings } from './settings.ts';
import { startFunction } from './testing.ts';

/** Answers with whom it takes for its client. */
const mirror = { open: true as const, handler: async ({ client }: { client?: string }) => ({ client }) };
const servers: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function clientSeen(forwarded: string | undefined, env: Record<string, string> = {}): Promise<unknown> {
  const server = await startFunction(mirror, { env });
  servers.push(server);
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  const response = await fetch(server.url, { headers });
  return ((await response.json()) as { client: unknown }).client;
}

test.each([
  ['nobody in between', undefined, {}, '127.0.0.1'],
  ['a gateway on this machine', '192.168.1.20', {}, '192.168.1.20'],
  ['a gateway, and a forged address before it', '8.8.8.8, 192.168.1.20', {}, '192.168.1.20'],
  ['words instead of addresses', 'me, 192.168.1.20', {}, '192.168.1.20'],
  ['Knative from zero', '203.0.113.7, 10.244.0.4, 10.244.0.9', { K_SERVICE: 'predict' }, '203.0.113.7'],
  ['Knative when it is warm', '203.0.113.7, 10.244.0.4', { K_SERVICE: 'predict' }, '203.0.113.7'],
  [
    'Knative, and a forged address',
    '8.8.8.8, 203.0.113.7, 10.244.0.4, 10.244.0.9',
    { K_SERVICE: 'predict' },
    '203.0.113.7',
  ],
  [
    'a forged address, and a client of the private network of the nodes',
    '8.8.8.8, 192.168.1.20, 10.244.0.4',
    { K_SERVICE: 'predict', TRUSTED_PROXIES: 'loopback,10.244.0.0/16' },
    '192.168.1.20',
  ],
  ['a proxy that is not to be believed', '8.8.8.8', { TRUSTED_PROXIES: 'none' }, '127.0.0.1'],
])('the client is who stands behind the trusted proxies: %s', async (_way, forwarded, env, client) => {
  expect(await clientSeen(forwarded, env)).toBe(client);
});

test.each(['10.0.0.0/33', 'proxy.example', 'none,loopback', '10.0.0.0/8/8', '2'])(
  'TRUSTED_PROXIES=%s is refused by name',
  (TRUSTED_PROXIES) => {
    expect(() => readRuntimeSettings({ TRUSTED_PROXIES }, {})).toThrow(/TRUSTED_PROXIES/);
  },
);
