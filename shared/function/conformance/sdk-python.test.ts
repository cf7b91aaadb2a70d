/** The public Python SDK (PyPI `cloudevents`) as a peer over HTTP, in both directions. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Event } from '../../events.ts';
import { decodeEvents, encodeBinary, encodeStructured, fromJsonEvent, toJsonEvent } from '../cloudevents.ts';
import { startFunction } from '../testing.ts';
import { exchanged, MIRROR_SOURCE, mirror } from './mirror.ts';
import { preparePython } from './python.ts';

const script = fileURLToPath(new URL('peer.py', import.meta.url));
const python = await preparePython();
const interpreter = python.interpreter ?? '';
if (python.unavailable !== undefined) {
  console.warn(
    `SKIPPED: the Python SDK of CloudEvents as a peer. There is no Python with it: ${python.unavailable}`,
  );
}

const modes = ['binary', 'structured'] as const;
const table = modes.flatMap((mode) => exchanged.map(([name, event]) => [mode, name, event] as const));

/** All but what the mirror changes. The SDK makes up a missing time, and may write one otherwise than it came. */
function core({ id, source, time, ...others }: Event, sent: Event): Event {
  const known = time === undefined || sent.time === undefined ? {} : { time: new Date(time).toISOString() };
  return { ...others, ...known } as Event;
}

/** JSON without a content type is JSON (JSON Format, section 3.1.2), and may be labelled so on the way. */
function labelled(event: Event): Event {
  return event.data === undefined ? event : { datacontenttype: 'application/json', ...event };
}

describe.skipIf(python.unavailable !== undefined)('the Python SDK', () => {
  let server: { url: string; close(): Promise<void> };
  let peer: ChildProcess;
  let peerUrl: string;

  beforeAll(async () => {
    server = await startFunction(mirror, { name: 'mirror' });
    peer = spawn(interpreter, [script, 'serve'], { stdio: ['ignore', 'pipe', 'inherit'] });
    if (peer.stdout === null) throw new Error('the peer has no output');
    const [port] = await once(createInterface({ input: peer.stdout }), 'line');
    peerUrl = `http://127.0.0.1:${port}`;
  });
  afterAll(async () => {
    await server.close();
    peer.kill();
  });

  /** Lets the SDK post an event and read the answer; gives what it read. */
  async function sendByPeer(mode: string, event: Event): Promise<Event> {
    const child = spawn(interpreter, [script, 'send', server.url, mode], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.end(`${JSON.stringify(toJsonEvent(event))}\n`);
    const output = Buffer.concat(await child.stdout.toArray()).toString();
    return fromJsonEvent(JSON.parse(output));
  }

  it.each(table)('sends, and reads the answer, in %s mode: %s', async (mode, _name, event) => {
    const answer = await sendByPeer(mode, event);
    expect(answer.source).toBe(MIRROR_SOURCE);
    expect(core(labelled(answer), event)).toEqual(core(labelled(event), event));
  });

  it.each(table)(
    'reads what we send in %s mode, and answers in the other: %s',
    async (mode, _name, event) => {
      const { headers, body } = mode === 'binary' ? encodeBinary(event) : encodeStructured(event);
      const other = mode === 'binary' ? 'structured' : 'binary';
      const init = { method: 'POST', headers: { ...headers, mode: other }, body: new Uint8Array(body ?? []) };
      const response = await fetch(peerUrl, init);
      const bytes = Buffer.from(await response.arrayBuffer());
      expect([response.status, response.status === 200 ? '' : bytes.toString()]).toEqual([200, '']);
      const answer = decodeEvents(Object.fromEntries(response.headers), bytes)?.events[0] as Event;
      expect(answer).toMatchObject({ id: event.id, source: event.source });
      expect(core(labelled(answer), event)).toEqual(core(labelled(event), event));
    },
  );
});
