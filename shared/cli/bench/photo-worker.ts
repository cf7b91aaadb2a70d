import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { z } from 'zod';
import { answerQuestions } from './worker.ts';

const question = z.object({ photos: z.array(z.object({ path: z.string(), label: z.string() })) });

/** Serves photos from memory, and the manifest that lists them, on a port of this machine. */
answerQuestions(question, async ({ photos }) => {
  const bytes = await Promise.all(photos.map(({ path }) => readFile(path)));
  const server = createServer((request, response) => {
    const number = /^\/photos\/(\d+)$/.exec(request.url ?? '')?.[1];
    const photo = number === undefined ? undefined : bytes[Number(number)];
    if (photo !== undefined) {
      response.setHeader('content-type', 'image/jpeg').end(photo);
      return;
    }
    const lines = photos.map(({ label }, index) => `http://${request.headers.host}/photos/${index},${label}`);
    response.setHeader('content-type', 'text/csv').end(`url,label\n${lines.join('\n')}\n`);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return { port: typeof address === 'object' ? address?.port : undefined };
});
