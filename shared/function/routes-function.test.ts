import { once } from 'node:events';
import { connect } from 'node:net';
import { fastify } from 'fastify';
import { expect, it } from 'vitest';
import { clientGone } from './routes-function.ts';

it('knows a client that left before anybody asked', async () => {
  const app = fastify();
  const seen = Promise.withResolvers<boolean>();
  app.get('/', async (_request, reply) => {
    // As while a step is looked for in the ledger.
    await once(reply.raw, 'close');
    seen.resolve(clientGone(reply).aborted);
  });
  const url = new URL(await app.listen({ port: 0, host: '127.0.0.1' }));
  const socket = connect(Number(url.port), url.hostname);
  socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n', () => socket.destroy());
  expect(await seen.promise).toBe(true);
  await app.close();
});
