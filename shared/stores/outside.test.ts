import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo, LookupFunction } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isForbiddenAddress, isPrivateAddress } from './addresses.ts';
import { fetchOutside, isTransient, type OutsideOptions, saveOutside } from './outside.ts';

const here = ['127.0.0.1'];
let server: Server;
let origin: string;
let requests = 0;

const pages: Record<string, RequestListener> = {
  '/photo': (_request, response) => {
    response.setHeader('content-type', 'Image/JPEG; charset=binary').end('bytes of a photo');
  },
  '/missing': (_request, response) => {
    response.writeHead(404).end();
  },
  '/busy': (_request, response) => {
    response.writeHead(503, { 'retry-after': '7' }).end();
  },
  '/hops/3': (_request, response) => {
    response.writeHead(302, { location: 'hops/2' }).end();
  },
  '/hops/hops/2': (_request, response) => {
    response.writeHead(308, { location: `${origin}/photo` }).end();
  },
  '/loop': (_request, response) => {
    response.writeHead(302, { location: '/loop' }).end();
  },
  '/to-private': (_request, response) => {
    response.writeHead(301, { location: 'http://10.1.2.3/secret' }).end();
  },
  '/to-localhost': (request, response) => {
    response.writeHead(302, { location: `http://localhost:${request.socket.localPort}/photo` }).end();
  },
  '/to-metadata': (_request, response) => {
    response.writeHead(302, { location: 'http://169.254.169.254/latest/meta-data/' }).end();
  },
  '/to-file': (_request, response) => {
    response.writeHead(302, { location: 'file:///etc/passwd' }).end();
  },
  '/announced-large': (_request, response) => {
    response.writeHead(200, { 'content-length': 1_000_000_000 });
    response.write('x');
  },
  '/endless': (_request, response) => {
    const pour = () => {
      while (!response.destroyed && response.write(Buffer.alloc(16_384)));
    };
    response.on('drain', pour);
    pour();
  },
  '/bomb': (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(5_000_000)));
  },
  '/zipped': (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('plain text'));
  },
  '/not-zipped': (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('plain text');
  },
  '/silent': () => {},
  '/slow-body': (_request, response) => {
    response.writeHead(200).write('first');
  },
  '/broken': (_request, response) => {
    response.writeHead(200, { 'content-length': 100 });
    response.write('x'.repeat(40), () => response.destroy());
  },
};

beforeAll(async () => {
  server = createServer((request, response) => {
    requests += 1;
    const page = pages[request.url ?? ''];
    if (page === undefined) response.writeHead(404).end();
    else page(request, response);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

function fetchHere(path: string, options: Partial<OutsideOptions> = {}) {
  return fetchOutside(`${origin}${path}`, {
    allowedHosts: here,
    timeoutMs: 10_000,
    maxBytes: 1_000_000,
    ...options,
  });
}

function codeOf(fetching: Promise<unknown>): Promise<unknown> {
  return fetching.then(
    () => 'fetched',
    (error) => error.code,
  );
}

describe('fetchOutside', () => {
  it('returns bytes, media type and the address the redirects ended at', async () => {
    const photo = await fetchHere('/hops/3');
    expect(Buffer.from(photo.bytes).toString()).toBe('bytes of a photo');
    expect(photo.contentType).toBe('image/jpeg');
    expect(photo.finalUrl).toBe(`${origin}/photo`);
  });

  it('names the status of a refusal and whether a repeat may help', async () => {
    const missing = await fetchHere('/missing').catch((error) => error);
    expect(missing).toMatchObject({ code: 'download-failed', extra: { httpStatus: 404 } });
    expect(missing.message).toContain('404');
    expect(isTransient(missing)).toBe(false);
    const busy = await fetchHere('/busy').catch((error) => error);
    expect(busy).toMatchObject({ extra: { httpStatus: 503, retryAfterMs: 7000 } });
    expect(isTransient(busy)).toBe(true);
  });

  it('gives up on a redirect loop', async () => {
    const error = await fetchHere('/loop', { redirects: 3 }).catch((thrown) => thrown);
    expect(error.code).toBe('download-failed');
    expect(error.message).toContain('3 times');
    expect(isTransient(error)).toBe(false);
  });

  it('stops at a body that is announced, or turns out, too large', async () => {
    expect(await codeOf(fetchHere('/announced-large'))).toBe('image-too-large');
    expect(await codeOf(fetchHere('/endless'))).toBe('image-too-large');
    expect(await codeOf(fetchHere('/photo', { maxBytes: 15 }))).toBe('image-too-large');
    expect(await codeOf(fetchHere('/photo', { maxBytes: 16 }))).toBe('fetched');
  });

  it('undoes a content encoding nobody asked for, within the same limit', async () => {
    expect(Buffer.from((await fetchHere('/zipped')).bytes).toString()).toBe('plain text');
    expect(await codeOf(fetchHere('/bomb'))).toBe('image-too-large');
    expect(await codeOf(fetchHere('/not-zipped'))).toBe('download-failed');
  });

  it('limits the time of the whole transfer', async () => {
    expect(await codeOf(fetchHere('/silent', { timeoutMs: 150 }))).toBe('download-timeout');
    expect(await codeOf(fetchHere('/slow-body', { timeoutMs: 150 }))).toBe('download-timeout');
  });

  it('reports a connection that breaks off as trouble worth a repeat', async () => {
    const broken = await fetchHere('/broken').catch((error) => error);
    expect(broken.code).toBe('download-failed');
    expect(isTransient(broken)).toBe(true);
    const closed = await fetchOutside('http://127.0.0.1:9/', {
      allowedHosts: here,
      timeoutMs: 5000,
      maxBytes: 10,
    }).catch((error) => error);
    expect(closed.code).toBe('download-failed');
    expect(isTransient(closed)).toBe(true);
  });

  it('throws the reason of the caller who aborts', async () => {
    const controller = new AbortController();
    const fetching = fetchHere('/silent', { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(fetching).rejects.toThrow('enough');
    await expect(fetchHere('/photo', { signal: controller.signal })).rejects.toThrow('enough');
  });

  it('writes to a file in the same way', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'outside-'));
    const path = join(directory, 'photo');
    const options = { allowedHosts: here, timeoutMs: 10_000, maxBytes: 1_000_000 };
    const saved = await saveOutside(`${origin}/photo`, path, options);
    expect(saved.sizeBytes).toBe(16);
    expect(await readFile(path, 'utf8')).toBe('bytes of a photo');
    expect(await codeOf(saveOutside(`${origin}/endless`, path, options))).toBe('image-too-large');
    await rm(directory, { recursive: true });
  });
});

describe('the guard of outside addresses', () => {
  const options = { timeoutMs: 5000, maxBytes: 1000 };

  // Every notation that URL parsers, resolvers and C libraries are known to accept for an inner address.
  const innerUrls = [
    'http://127.0.0.1/',
    'http://127.1/',
    'http://2130706433/',
    'http://0x7f000001/',
    'http://0x7f.0x0.0x0.0x1/',
    'http://0177.0.0.1/',
    'http://017700000001/',
    'http://127.0.0.1./',
    'http://%31%32%37.0.0.1/',
    'http://①②⑦.⓪.⓪.①/',
    'http://127。0。0。1/',
    'http://0/',
    'http://0.0.0.0/',
    'http://localhost/',
    'http://LOCALHOST/',
    'http://10.0.0.1/',
    'http://172.16.0.1/',
    'http://172.31.255.255/',
    'http://192.168.1.1/',
    'http://100.64.0.1/',
    'http://169.254.169.254/latest/meta-data/',
    'http://2852039166/',
    'http://0xa9fea9fe/',
    'http://168.63.129.16/',
    'http://100.100.100.200/',
    'http://192.0.0.192/',
    'http://198.18.0.1/',
    'http://224.0.0.1/',
    'http://240.0.0.1/',
    'http://255.255.255.255/',
    'http://[::]/',
    'http://[::1]/',
    'http://[0:0:0:0:0:0:0:1]/',
    'http://[::ffff:127.0.0.1]/',
    'http://[::ffff:a9fe:a9fe]/',
    'http://[::ffff:8.8.8.8]/',
    'http://[::127.0.0.1]/',
    'http://[64:ff9b::127.0.0.1]/',
    'http://[64:ff9b:1::1]/',
    'http://[2002:7f00:1::]/',
    'http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/',
    'http://[fc00::1]/',
    'http://[fd00:ec2::254]/',
    'http://[fe80::1]/',
    'http://[fec0::1]/',
    'http://[ff02::1]/',
    'http://[100::1]/',
    'http://[2001:db8::1]/',
    'http://[3fff::1]/',
  ];

  it.each(innerUrls)('refuses %s', async (url) => {
    expect(await codeOf(fetchOutside(url, options))).toBe('address-refused');
  });

  it.each([
    'ftp://example.org/x.jpg',
    'file:///etc/passwd',
    'data:image/png;base64,AAAA',
    'gopher://example.org/',
    'http://user@example.org/',
    'http://user:secret@example.org/',
    'http://[fe80::1%25eth0]/',
    'http://',
    'photo.jpg',
    '',
  ])('refuses what is no plain web address: %s', async (url) => {
    expect(await codeOf(fetchOutside(url, options))).toBe('address-refused');
  });

  it('never sends a request to a refused address', async () => {
    const before = requests;
    const { port } = new URL(origin);
    for (const host of ['127.0.0.1', 'localhost', '2130706433', '127.1']) {
      expect(await codeOf(fetchOutside(`http://${host}:${port}/photo`, options))).toBe('address-refused');
    }
    expect(requests).toBe(before);
  });

  it('judges every redirect, and an exemption does not carry over to another host', async () => {
    expect(await codeOf(fetchHere('/to-private'))).toBe('address-refused');
    expect(await codeOf(fetchHere('/to-metadata'))).toBe('address-refused');
    expect(await codeOf(fetchHere('/to-file'))).toBe('address-refused');
    expect(await codeOf(fetchHere('/to-localhost'))).toBe('address-refused');
    expect(await codeOf(fetchHere('/to-localhost', { allowedHosts: [...here, 'localhost'] }))).toBe(
      'fetched',
    );
  });

  it('exempts hosts by name, with or without a port', async () => {
    const { port } = new URL(origin);
    expect(await codeOf(fetchHere('/photo', { allowedHosts: [`127.0.0.1:${port}`] }))).toBe('fetched');
    expect(await codeOf(fetchHere('/photo', { allowedHosts: ['127.0.0.1:1'] }))).toBe('address-refused');
    expect(await codeOf(fetchHere('/photo', { allowedHosts: ['27.0.0.1', '0.0.1'] }))).toBe(
      'address-refused',
    );
  });

  it('never exempts link-local and metadata addresses', async () => {
    for (const host of ['169.254.169.254', '[fe80::1]', '[::ffff:169.254.169.254]', '[fd00:ec2::254]']) {
      const allowed = { ...options, allowedHosts: [host] };
      expect(await codeOf(fetchOutside(`http://${host}/`, allowed))).toBe('address-refused');
    }
    const lookup = answering([['169.254.169.254']]);
    const allowed = { ...options, allowedHosts: ['metadata.example'], lookup };
    expect(await codeOf(fetchOutside('http://metadata.example/', allowed))).toBe('address-refused');
  });

  it('connects to the very address that was checked: a second answer of the name server is never asked for', async () => {
    let asked = 0;
    const { port } = new URL(origin);
    const rebinding = answering([['127.0.0.1'], ['10.0.0.1']], () => {
      asked += 1;
    });
    const url = `http://rebinding.example:${port}/photo`;
    const exempt = { ...options, allowedHosts: ['rebinding.example'], lookup: rebinding };
    expect(await codeOf(fetchOutside(url, exempt))).toBe('fetched');
    expect(asked).toBe(1);
    // The connection that was made under the exemption must not serve a caller without it.
    expect(await codeOf(fetchOutside(url, { ...options, lookup: rebinding }))).toBe('address-refused');
  });

  it('refuses a name when any of its addresses is refused', async () => {
    const lookup = answering([['93.184.215.14', '127.0.0.1']]);
    expect(await codeOf(fetchOutside('http://two.example/', { ...options, lookup }))).toBe('address-refused');
  });

  it('lets ordinary public addresses through', () => {
    for (const address of [
      '1.1.1.1',
      '8.8.8.8',
      '172.15.0.1',
      '172.32.0.1',
      '100.128.0.1',
      '192.0.1.1',
      '223.255.255.255',
      '2606:4700::1111',
      '2a00:1450:4001::1',
    ]) {
      expect(isPrivateAddress(address), address).toBe(false);
      expect(isForbiddenAddress(address), address).toBe(false);
    }
    for (const address of ['', 'example.org', '1.2.3', '2606:4700::1111%eth0']) {
      expect(isPrivateAddress(address), address).toBe(true);
    }
  });
});

/** A resolver that gives one list of addresses after the other, the last one for ever. */
function answering(answers: string[][], onAsk: () => void = () => {}): LookupFunction {
  let turn = 0;
  return (_hostname, _options, callback) => {
    onAsk();
    const addresses = answers[Math.min(turn++, answers.length - 1)] ?? [];
    const found = addresses.map((address) => ({ address, family: 4 }));
    queueMicrotask(() => callback(null, found));
  };
}
