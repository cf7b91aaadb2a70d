import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { decodeEvents } from '../function/cloudevents.ts';
import { deliver } from './delivery.ts';
import { keepBytes } from './event-bytes.ts';
import { openJournal } from './journal.ts';

const headers = {
  ...{ 'ce-specversion': '1.0', 'ce-id': 'e1', 'ce-source': '/test', 'ce-type': 'photo.taken' },
  ...{ 'ce-subject': 'ein%20Bl%C3%BCmchen', 'content-type': 'application/json' },
};
/** No writer of ours sets blanks or escapes like that: only who hands on what came leaves them. */
const json = Buffer.from('{ "label" :"Bl\\u00fcmchen",  "sizes":[1.0,2e3] }');

function received() {
  const event = decodeEvents(headers, json)?.events[0];
  if (event === undefined) throw new Error('no event');
  keepBytes(event, json);
  // As the broker does on its arrival.
  return { knativearrivaltime: '2030-01-01T00:00:00Z', ...event };
}

it('data goes on to functions as it came, byte for byte, with all attributes', async () => {
  const requests: { body: Buffer; headers: NodeJS.Dict<string | string[]> }[] = [];
  const server = createServer(async (request, response) => {
    requests.push({ headers: request.headers, body: await buffer(request) });
    response.writeHead(204).end();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    await deliver(received(), `http://127.0.0.1:${port}`);
  } finally {
    server.close();
  }
  expect(requests[0]?.body.toString()).toBe(json.toString());
  expect(requests[0]?.headers).toMatchObject({ ...headers, 'ce-knativearrivaltime': '2030-01-01T00:00:00Z' });
});

it('an event comes out of the journal as it went in', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-journal-'));
  try {
    const journal = await openJournal(folder, pino({ level: 'silent' }));
    await journal.add(received());
    expect(await (await openJournal(folder, pino({ level: 'silent' }))).list()).toEqual([received()]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
