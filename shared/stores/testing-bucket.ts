import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { crc32 } from 'node:zlib';

/** An S3 server of one bucket in memory, which takes nothing whose signature it does not come to by itself. */
export interface TestBucket {
  endpoint: string;
  /** Requests so far, as `GET /flowers/a`; those of the SDK end in `(SDK)`. */
  requests: string[];
  connections(): number;
  /** Headers that answers carry beside those of S3. */
  headers: Record<string, string>;
  close(): void;
}

export const testKeys = { AWS_ACCESS_KEY_ID: 'me', AWS_SECRET_ACCESS_KEY: 'a secret/+' };
export const testRegion = 'eu-central-1';

export async function startTestBucket(): Promise<TestBucket> {
  const objects = new Map<string, Buffer>();
  const requests: string[] = [];
  const headers: Record<string, string> = {};
  let connections = 0;
  const refuse = (response: ServerResponse, status: number, code: string) =>
    response
      .writeHead(status, { 'content-type': 'application/xml' })
      .end(`<Error><Code>${code}</Code></Error>`);

  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const body = await buffer(request);
    const [path = ''] = (request.url ?? '').split('?');
    const bySdk = request.headers['amz-sdk-request'] === undefined ? '' : ' (SDK)';
    requests.push(`${request.method} ${decodeURIComponent(path)}${bySdk}`);
    if (!isSigned(request, path)) return refuse(response, 403, 'SignatureDoesNotMatch');
    if (request.method === 'PUT') {
      objects.set(decodeURIComponent(path), body);
      return response.writeHead(200, { etag: etagOf(body) }).end();
    }
    const found = objects.get(decodeURIComponent(path));
    if (found === undefined) return refuse(response, 404, 'NoSuchKey');
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc32(found));
    const asksForSum = request.headers['x-amz-checksum-mode'] === 'ENABLED';
    const checksum = asksForSum ? { 'x-amz-checksum-crc32': sum.toString('base64') } : {};
    response.writeHead(200, {
      ...{ etag: etagOf(found), 'content-length': found.byteLength },
      ...{ ...checksum, ...headers },
    });
    return response.end(found);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  server.on('connection', () => {
    connections += 1;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return {
    endpoint: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    ...{ requests, headers, connections: () => connections },
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function etagOf(bytes: Uint8Array): string {
  return `"${createHash('md5').update(bytes).digest('hex')}"`;
}

/** By https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, without a look at who signs. */
function isSigned(request: IncomingMessage, path: string): boolean {
  const pattern = /^AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=(\w+)$/;
  const [, credential = '', names = '', signature] = pattern.exec(request.headers.authorization ?? '') ?? [];
  const [id, date = '', region = '', service = '', end = ''] = credential.split('/');
  if (id !== testKeys.AWS_ACCESS_KEY_ID || region !== testRegion) return false;
  const sent = (name: string) => String(request.headers[name] ?? '').trim();
  const query = new URL(request.url ?? '', 'http://bucket').searchParams;
  query.sort();
  const canonical = [
    request.method,
    path
      .split('/')
      .map((part) => encodeStrictly(decodeURIComponent(part)))
      .join('/'),
    [...query].map(([name, value]) => `${encodeStrictly(name)}=${encodeStrictly(value)}`).join('&'),
    ...names.split(';').map((name) => `${name}:${sent(name)}`),
    ...['', names, sent('x-amz-content-sha256')],
  ].join('\n');
  const toSign = [
    ...['AWS4-HMAC-SHA256', sent('x-amz-date'), `${date}/${region}/${service}/${end}`],
    createHash('sha256').update(canonical).digest('hex'),
  ].join('\n');
  const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const key = [date, region, service, end].reduce(hmac, Buffer.from(`AWS4${testKeys.AWS_SECRET_ACCESS_KEY}`));
  return hmac(key, toSign).toString('hex') === signature;
}

function encodeStrictly(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
