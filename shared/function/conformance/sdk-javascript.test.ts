/** The public JavaScript SDK (npm `cloudevents`) as a peer over HTTP, in both directions. */
import { createServer, type Server } from 'node:http';
import { CloudEvent, HTTP, type Message } from 'cloudevents';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Event } from '../../events.ts';
import { decodeEvents, encodeBinary, encodeStructured, toJsonEvent } from '../cloudevents.ts';
import { startFunction } from '../testing.ts';
import { exchanged, MIRROR_SOURCE, mirror, REQUIRED } from './mirror.ts';

let server: { url: string; close(): Promise<void> };
let peer: Server;
let peerUrl: string;

beforeAll(async () => {
  server = await startFunction(mirror, { name: 'mirror' });
  peer = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    const { mode } = request.headers;
    const content = isText(request.headers) ? body.toString() : body;
    const read = HTTP.toEvent({ headers: request.headers, body: body.length === 0 ? undefined : content });
    const event = (Array.isArray(read) ? read[0] : read) as CloudEvent;
    const message = mode === 'structured' ? HTTP.structured(event) : HTTP.binary(event);
    response.writeHead(200, message.headers as Record<string, string>).end(bodyOf(message));
  });
  await new Promise<void>((resolve) => peer.listen(0, '127.0.0.1', resolve));
  const address = peer.address();
  peerUrl = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
});
afterAll(async () => {
  await server.close();
  peer.close();
});

function isText(headers: Message['headers']): boolean {
  return !String(headers['content-type']).startsWith('application/octet-stream');
}

function bodyOf({ body }: Message): Buffer {
  return body instanceof Uint8Array ? Buffer.from(body) : Buffer.from(typeof body === 'string' ? body : '');
}

/** What the SDK is known to get wrong with this event, so that it can be no witness. */
const sdkFaults: Record<string, string[]> = {
  // Headers are neither percent-encoded nor decoded (cloudevents/spec#1397).
  'text of all kinds in attributes': ['from it, binary', 'to it, binary'],
  extensions: ['to it, binary'],
  // Only `application/json` is read as JSON in binary mode.
  'JSON of a vendor': ['to it, binary'],
  // A structured `data_base64` is read as 32-bit numbers.
  bytes: ['to it, structured'],
};

const modes = ['binary', 'structured'] as const;
const table = (direction: string) =>
  modes.flatMap((mode) =>
    exchanged
      .filter(([name]) => sdkFaults[name]?.includes(`${direction}, ${mode}`) !== true)
      .map(([name, event]) => [mode, name, event] as const),
  );

/** Attributes and data; what the SDK invents (a missing time) is not compared. */
function core(event: Event | undefined): Event {
  const { time, datacontenttype, id, source, ...others } = event ?? ({} as Event);
  return JSON.parse(JSON.stringify(toJsonEvent(others as Event))) as Event;
}

describe('from it', () => {
  it.each(table('from it'))('reads, in %s mode, %s', async (mode, _name, event) => {
    const message =
      mode === 'binary' ? HTTP.binary(new CloudEvent(event)) : HTTP.structured(new CloudEvent(event));
    const headers = message.headers as Record<string, string>;
    const init = { method: 'POST', headers, body: new Uint8Array(bodyOf(message)) };
    const response = await fetch(server.url, init);
    const answer = decodeEvents(
      Object.fromEntries(response.headers),
      Buffer.from(await response.arrayBuffer()),
    );
    expect([response.status, answer?.events[0]?.source]).toEqual([200, MIRROR_SOURCE]);
    expect(core(answer?.events[0])).toEqual(core(event));
  });
});

describe('to it', () => {
  it.each(table('to it'))('is read, in %s mode, %s', async (mode, _name, event) => {
    const { headers, body } = mode === 'binary' ? encodeBinary(event) : encodeStructured(event);
    const init = {
      method: 'POST',
      headers: { ...headers, mode: 'structured' },
      body: new Uint8Array(body ?? []),
    };
    const answer = (await (await fetch(peerUrl, init)).json()) as Event;
    expect(answer).toMatchObject({ ...REQUIRED, source: event.source });
    expect(core(answer)).toEqual(core(event));
  });
});
