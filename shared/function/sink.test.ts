import { once } from 'node:events';
import { createServer } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stepEvent } from './fixtures/functions.ts';
import { readRuntimeSettings } from './settings.ts';
import { createSink } from './sink.ts';

let retryAfter = '';
const server = createServer((request, response) => {
  request.resume();
  response.writeHead(503, { 'retry-after': retryAfter }).end();
});

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe('a sink that names the time of the next try', () => {
  it.each([
    ['2', 2000],
    ['0.5', 500],
    ['-5', 0],
    ['Wed, 21 Oct 2026 07:28:00 GMT', 0],
    // Beyond what a timer of Node.js can wait: it would fire at once.
    ['99999999999', 3_600_000],
  ])('is waited for %s within reason', async (header, retryAfterMs) => {
    retryAfter = header;
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const sink = createSink(readRuntimeSettings({ K_SINK: `http://127.0.0.1:${port}` }, {}));
    expect(await sink?.(stepEvent('late'))).toMatchObject({ kind: 'failed', retryAfterMs });
  });
});
