import { once } from 'node:events';
import { createServer } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { askFunction } from './ask.ts';

let status = 200;
let url: string;
const server = createServer((_request, response) => {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ code: 'some-code', detail: 'What went wrong.' }));
});

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe('asking a function', () => {
  it.each([
    [410, 'bad-request'],
    [422, 'bad-request'],
    [500, 'upstream-unavailable'],
    [503, 'upstream-unavailable'],
  ])('tells the reason of %i as %s: the caller is at fault, or the function', async (answered, code) => {
    status = answered;
    await expect(askFunction(url)).rejects.toMatchObject({ code, message: 'What went wrong.' });
  });

  it('says where nothing answers', async () => {
    await expect(askFunction('http://127.0.0.1:9')).rejects.toMatchObject({ code: 'upstream-unavailable' });
  });
});
