import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Writes a small function as its bundle would be, for tests of what stands around functions.
 *
 * @param body statements of `async (request, reply) => ...`; `request` has `method`, `url`, `headers`, `body` (text);
 *   `reply(status, headers, body)` answers. `started` is the number of this start of the function.
 */
export async function writeFunction(distDir: string, name: string, body: string, before = ''): Promise<void> {
  const folder = join(distDir, name);
  await mkdir(folder, { recursive: true });
  const code = `
    import { appendFileSync, readFileSync } from 'node:fs';
    import { createServer } from 'node:http';
    import { setTimeout as sleep } from 'node:timers/promises';
    const starts = new URL('starts', import.meta.url);
    appendFileSync(starts, '.');
    const started = readFileSync(starts).length;
    ${before}
    const handle = async (request, reply, response) => { ${body} };
    const server = createServer(async (incoming, response) => {
      const reply = (status, headers = {}, text = '') => response.writeHead(status, headers).end(text);
      if (incoming.url === '/health/ready') return reply(200);
      const chunks = await incoming.toArray();
      const { method, url, headers } = incoming;
      await handle({ method, url, headers, body: Buffer.concat(chunks).toString() }, reply, response);
    });
    process.once('SIGTERM', () => server.close(() => process.exit(0)));
    process.once('disconnect', () => process.exit(0));
    server.listen(Number(process.env.PORT), process.env.HOST, () => {
      process.send?.({ listening: { port: server.address().port } });
    });`;
  await writeFile(join(folder, 'index.mjs'), code);
}
