import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type ObjectStore, openObjects } from './objects.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

function storeAt(endpoint: string, changes: Record<string, string> = {}): ObjectStore {
  const keys = { AWS_ACCESS_KEY_ID: 'me', AWS_SECRET_ACCESS_KEY: 'secret' };
  return openObjects({ S3_ENDPOINT: endpoint, S3_BUCKET: 'flowers', ...keys, ...changes });
}

/** A server that answers as an S3 server in trouble does. */
async function startTroubled(status: number, code: string, message = 'no') {
  let requests = 0;
  const answer: RequestListener = (request, response) => {
    requests += 1;
    request.resume().on('end', () => {
      response.writeHead(status, { 'content-type': 'application/xml' });
      response.end(
        request.method === 'HEAD'
          ? undefined
          : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`,
      );
    });
  };
  const port = await listening(createServer(answer));
  return { endpoint: `http://127.0.0.1:${port}`, requests: () => requests };
}

const bytes = Buffer.from('bytes');

describe('trouble with an S3 server', () => {
  it.each([
    [403, 'RequestTimeTooSkewed', 'clock-skewed', /clock.*NTP/],
    [403, 'InvalidAccessKeyId', 'store-forbidden', /AWS_ACCESS_KEY_ID/],
    [403, 'SignatureDoesNotMatch', 'store-forbidden', /AWS_SECRET_ACCESS_KEY/],
    [403, 'AccessDenied', 'store-forbidden', /read and write "flowers"/],
    [400, 'AuthorizationHeaderMalformed', 'store-forbidden', /S3_REGION/],
    [507, 'XMinioStorageFull', 'store-full', /no space left/],
    [400, 'IncompleteBody', 'store-full', /disk is full/],
    [507, 'InsufficientStorage', 'store-full', /no space left/],
    [503, 'SlowDown', 'store-unavailable', /503/],
    [500, 'InternalError', 'store-unavailable', /500/],
  ])('%d %s is %s, with the server and the cure', async (status, answered, code, cure) => {
    const { endpoint } = await startTroubled(status, answered);
    const named = { code, status: 503, message: expect.stringMatching(cure) };
    const error = await storeAt(endpoint)
      .put('a', bytes)
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject(named);
    expect(error).toMatchObject({ message: expect.stringContaining(endpoint) });
    await expect(storeAt(endpoint).get('a')).rejects.toMatchObject(named);
  });

  it('names a missing bucket that it may not make', async () => {
    const port = await listening(
      createServer((request, response) => {
        const isCreation = request.method === 'PUT' && !request.url?.startsWith('/flowers/a');
        const [status, code] = isCreation ? [403, 'AccessDenied'] : [404, 'NoSuchBucket'];
        request.resume();
        response.writeHead(status, { 'content-type': 'application/xml' });
        response.end(`<Error><Code>${code}</Code><Message>no</Message></Error>`);
      }),
    );
    const store = storeAt(`http://127.0.0.1:${port}`);
    const missing = { code: 'bucket-missing', message: expect.stringMatching(/"flowers".*S3_BUCKET/) };
    await expect(store.put('a', bytes)).rejects.toMatchObject(missing);
    await expect(store.head('a')).rejects.toMatchObject(missing);
    await expect(store.putStream('a', [bytes].values() as never)).rejects.toMatchObject(missing);
  });

  it('says so when nothing listens', async () => {
    const down = await listening(createServer());
    for (const close of closers.splice(0)) close();
    const unavailable = {
      code: 'store-unavailable',
      message: expect.stringMatching(new RegExp(`127.0.0.1:${down}.*ECONNREFUSED.*S3_ENDPOINT`)),
    };
    await expect(storeAt(`http://127.0.0.1:${down}`).get('a')).rejects.toMatchObject(unavailable);
    await expect(storeAt(`http://localhost:${down}`).put('a', bytes)).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining('ECONNREFUSED'),
    });
  });

  it('says so when the address is of something else', async () => {
    const port = await listening(createServer((_request, response) => response.end('<html>Welcome</html>')));
    const strange = { code: 'store-unavailable', message: expect.stringContaining('S3_ENDPOINT') };
    const store = storeAt(`http://127.0.0.1:${port}`);
    await expect(store.list('a')[Symbol.asyncIterator]().next()).rejects.toMatchObject(strange);
    await expect(store.put('a', bytes)).rejects.toMatchObject(strange);
    await expect(store.get('a')).rejects.toMatchObject(strange);
    await expect(store.putIf('a', bytes, { etag: null })).rejects.toMatchObject(strange);
  });

  it('says so when one end speaks TLS and the other does not', async () => {
    const port = await listening(createServer((_request, response) => response.end()));
    await expect(storeAt(`https://127.0.0.1:${port}`).get('a')).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining('TLS'),
    });
  });

  it('asks again when a server is busy, and goes on', async () => {
    let requests = 0;
    const port = await listening(
      createServer((request, response) => {
        requests += 1;
        request.resume();
        response.writeHead(requests < 3 ? 503 : 200, { etag: '"1"' }).end();
      }),
    );
    await storeAt(`http://127.0.0.1:${port}`).put('a', bytes);
    expect(requests).toBe(3);
  });

  it('finds bytes that are not those of the checksum that came with them', async () => {
    const answer: RequestListener = (_request, response) => {
      response.writeHead(200, { etag: '"1"', 'content-length': 5, 'x-amz-checksum-crc32': 'AAAAAA==' });
      response.end('bytes');
    };
    const port = await listening(createServer(answer));
    const store = storeAt(`http://127.0.0.1:${port}`);
    const corrupt = { code: 'object-corrupt', message: expect.stringContaining('"a"') };
    await expect(store.get('a')).rejects.toMatchObject(corrupt);
    const stream = await store.getStream('a');
    await expect(stream.toArray()).rejects.toMatchObject(corrupt);
  });

  it('asks again for an answer that breaks off, and gives up in the end', async () => {
    let requests = 0;
    const port = await listening(
      createServer((_request, response) => {
        requests += 1;
        response.writeHead(200, { etag: '"1"', 'content-length': 5 });
        if (requests % 5 === 3) response.end('bytes');
        else response.write('by', () => response.destroy());
      }),
    );
    const store = storeAt(`http://127.0.0.1:${port}`);
    expect((await store.get('a')).bytes.toString()).toBe('bytes');
    expect(requests).toBe(3);
    const stream = await store.getStream('a');
    await expect(stream.toArray()).rejects.toMatchObject({ code: 'store-unavailable' });
  });

  it('counts a write as won that the server took although its answer was lost', async () => {
    let standing: Buffer | undefined;
    const port = await listening(
      createServer(async (request, response) => {
        const sent = Buffer.concat(await request.toArray());
        if (request.method === 'GET') return response.writeHead(200, { etag: '"1"' }).end(standing);
        if (standing !== undefined) return response.writeHead(412).end();
        standing = sent;
        return response.destroy();
      }),
    );
    const outcome = await storeAt(`http://127.0.0.1:${port}`).putIf('champion', bytes, { etag: null });
    expect(outcome).toEqual({ won: true, etag: '"1"' });
  });
});
