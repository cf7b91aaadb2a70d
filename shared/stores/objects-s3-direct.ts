import * as http from 'node:http';
import * as https from 'node:https';
import { crc32 } from 'node:zlib';
import aws4 from 'aws4';
import { checkKey, objectMissing } from './object-keys.ts';
import { gather } from './object-streams.ts';
import { CONNECT_WITHIN_MS, type ServerSettings, SILENT_FOR_MS } from './objects-s3-settings.ts';

/** The only trouble that is told here: everyone's answer for an object that is not there, in an intact bucket. */
const NO_SUCH_KEY = /<Code>NoSuchKey<\/Code>/;
const CHECKSUM = 'x-amz-checksum-';
/** An error's document; a longer one is none. */
const ERROR_BYTES = 64 * 1024;

/** Reads an object; undefined where the SDK is to be asked. */
export type ReadDirectly = (key: string) => Promise<{ bytes: Buffer; etag: string } | undefined>;

/**
 * Reads objects by one signed GET each, without the AWS SDK: predict fetches its model so before it is ready, and with the
 * SDK that took 50 ms of processor time more.
 *
 * Only the straight way is here: whatever else happens (a server in trouble, a checksum that differs or is of a kind that
 * Node does not compute, an answer that breaks off) is undefined, and left to the SDK's retries and error names.
 *
 * @returns undefined where the credentials are not a given pair of keys, or the endpoint is more than host and path
 */
export function openDirectReads(settings: ServerSettings): ReadDirectly | undefined {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = settings;
  if (accessKeyId === undefined || secretAccessKey === undefined) return undefined;
  const { protocol, hostname, port, host, pathname, search, username } = new URL(settings.S3_ENDPOINT);
  if (search !== '' || username !== '') return undefined;
  const credentials = { accessKeyId, secretAccessKey, sessionToken: settings.AWS_SESSION_TOKEN };
  const { Agent, request } = protocol === 'https:' ? https : http;
  const agent = new Agent({ keepAlive: true });
  const folder = `${pathname.replace(/\/$/, '')}/${settings.S3_BUCKET}`;

  const ask = (key: string): Promise<http.IncomingMessage> => {
    const path = `${folder}/${key.split('/').map(encodeURIComponent).join('/')}`;
    const headers = { host, [`${CHECKSUM}mode`]: 'ENABLED' };
    const signed = aws4.sign(
      { service: 's3', region: settings.S3_REGION, method: 'GET', path, headers },
      credentials,
    );
    return new Promise((resolve, reject) => {
      // Brackets of an IPv6 address belong to addresses, not to connections.
      const to = { hostname: hostname.replace(/^\[|\]$/g, ''), port, path, headers: signed.headers, agent };
      const asked = request(to as http.RequestOptions, resolve);
      const giveUp = () => void asked.destroy(new Error('nothing moves'));
      const connecting = setTimeout(giveUp, CONNECT_WITHIN_MS);
      const connected = () => clearTimeout(connecting);
      asked.setTimeout(SILENT_FOR_MS, giveUp);
      asked.once('socket', (socket) => (socket.connecting ? socket.once('connect', connected) : connected()));
      asked.once('close', connected).once('error', reject).end();
    });
  };

  return async (key) => {
    checkKey(key);
    const answer = await read(ask, key).catch(() => undefined);
    if (answer === 'missing') throw objectMissing(key);
    return answer;
  };
}

async function read(
  ask: (key: string) => Promise<http.IncomingMessage>,
  key: string,
): Promise<{ bytes: Buffer; etag: string } | 'missing' | undefined> {
  const response = await ask(key);
  const { statusCode, headers } = response;
  const sizeBytes = Number(headers['content-length'] ?? 0);
  if (statusCode === 404 && sizeBytes < ERROR_BYTES) {
    const told = await gather(response, sizeBytes);
    return NO_SUCH_KEY.test(told.toString()) ? 'missing' : undefined;
  }
  if (statusCode !== 200 || headers.etag === undefined || !canCheck(headers)) {
    response.destroy();
    return undefined;
  }
  const bytes = await gather(response, sizeBytes);
  const checksum = headers[`${CHECKSUM}crc32`];
  if (checksum !== undefined && checksum !== crc32Of(bytes)) return undefined;
  return { bytes, etag: headers.etag };
}

/** Whether the answer carries no checksum but one that Node computes: of whole bytes, not of an upload's parts. */
function canCheck(headers: http.IncomingHttpHeaders): boolean {
  return Object.entries(headers).every(([name, value]) => {
    if (!name.startsWith(CHECKSUM)) return true;
    if (name === `${CHECKSUM}type`) return value === 'FULL_OBJECT';
    return name === `${CHECKSUM}crc32` && !String(value).includes('-');
  });
}

function crc32Of(bytes: Uint8Array): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(bytes));
  return sum.toString('base64');
}
