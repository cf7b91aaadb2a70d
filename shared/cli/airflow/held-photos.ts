import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';

/** A web server with a manifest and its photos that keeps whoever asks for a photo waiting as long as it is told. */
export interface HeldPhotos {
  manifestUrl: string;
  /** `host:port`, to be allowed to the ingest step. */
  host: string;
  /** From now on photos are not answered. */
  hold(): void;
  /** Answers those who wait, and who come from now on. */
  release(): void;
  close(): void;
}

/** @param folder with a folder a class */
export async function serveHeldPhotos(folder: string): Promise<HeldPhotos> {
  const labels = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const lines = ['url,label'];
  for (const { name } of labels) {
    for (const file of await readdir(join(folder, name))) {
      lines.push(`photos/${encodeURIComponent(name)}/${encodeURIComponent(file)},${name}`);
    }
  }
  let gate: PromiseWithResolvers<void> = Promise.withResolvers();
  gate.resolve();
  const server = createServer(async (request, response) => {
    const [, kind, label = '', file = ''] = (request.url ?? '').split('/').map(decodeURIComponent);
    if (kind === 'manifest.csv') return response.end(lines.join('\n'));
    await gate.promise;
    const bytes = await readFile(join(folder, basename(label), basename(file))).catch(() => undefined);
    response.statusCode = bytes === undefined ? 404 : 200;
    return response.end(bytes);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    manifestUrl: `http://${host}/manifest.csv`,
    host,
    hold() {
      gate.resolve();
      gate = Promise.withResolvers();
    },
    release: () => gate.resolve(),
    close() {
      gate.resolve();
      server.close();
      server.closeAllConnections();
    },
  };
}
