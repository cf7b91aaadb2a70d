import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import { openObjects } from '../stores/objects.ts';
import { claimStep, finishStep, writeProgress } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { createBroker } from './broker.ts';
import { type Gateway, startGateway } from './gateway.ts';
import { openJournal } from './journal.ts';
import { followPipeline, type PipelineState } from './pipeline.ts';
import { openProcesses, type Processes } from './processes.ts';
import { writeFunction } from './testing-functions.ts';

const logger = pino({ level: 'silent' });
const token = 'a-token-of-at-least-16';
let folder: string;
let database: TestDatabase;
let processes: Processes;
let accepted: Event[];
let gateways: Gateway[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-gateway-'));
  database = await testDatabase();
  accepted = [];
  gateways = [];
  const distDir = join(folder, 'dist');
  const mirror = 'reply(200, { "content-type": "application/json" }, JSON.stringify(request))';
  for (const name of ['mirror', 'predict', 'webapp', 'ingest']) await writeFunction(distDir, name, mirror);
  await writeFunction(distDir, 'busy', "reply(503, { 'retry-after': '1' }, 'later')");
  await writeFunction(
    distDir,
    'drip',
    "response.writeHead(200).write('one '); await sleep(50); response.end('two')",
  );
  await writeFunction(distDir, 'dying', 'process.exit(1)');
  processes = openProcesses({ distDir, logsDir: join(folder, 'logs'), env: {}, logger });
});

afterEach(async () => {
  await Promise.all(gateways.map((gateway) => gateway.close()));
  await processes.stop();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

async function open(
  options: { host?: string; token?: string; port?: number; graceMs?: number } = {},
): Promise<Gateway> {
  const journal = await openJournal(join(folder, 'journal'), logger);
  const broker = createBroker({ triggers: [], processes, journal, logger });
  broker.onAccepted((event) => accepted.push(event));
  const objects = openObjects({ OBJECTS_DIR: join(folder, 'objects') });
  const pipeline = followPipeline({ db: database.db, objects, model: 'dandelion', broker });
  const gateway = await startGateway({ port: 0, processes, broker, pipeline, logger, ...options });
  gateways.push(gateway);
  return gateway;
}

/** What the function "mirror" saw. */
interface Seen {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: string;
}

async function mirrored(url: string, init?: RequestInit): Promise<Seen> {
  const response = await fetch(url, init);
  expect(response.status).toBe(200);
  return (await response.json()) as Seen;
}

async function pipelineAt(url: string): Promise<PipelineState> {
  return (await (await fetch(`${url}/pipeline`)).json()) as PipelineState;
}

describe('webhooks of others', () => {
  test('go to ingest as they come', async () => {
    const { url } = await open();
    const body = '{"Records":[]}';
    const seen = await mirrored(`${url}/hooks/s3`, { method: 'POST', body });
    expect(seen).toMatchObject({ method: 'POST', url: '/hooks/s3', body });
  });

  test('want the token where other machines can send them', async () => {
    const { url } = await open({ host: '0.0.0.0', token });
    const post = (headers: Record<string, string>) =>
      fetch(`${url}/hooks/s3`, { method: 'POST', body: '{}', headers });
    expect((await post({})).status).toBe(401);
    const answer = await post({ authorization: `Bearer ${token}` });
    expect(answer.status).toBe(200);
  });
});

describe('functions behind the gateway', () => {
  test('get path, query, headers and body as they were sent, and the prefix that was cut off', async () => {
    const { url } = await open();
    const seen = await mirrored(`${url}/function/mirror/a%20b/c?x=1&y=%2F`, {
      method: 'PUT',
      body: '{"a": 1}',
      headers: { 'content-type': 'application/json', 'x-mine': 'yes' },
    });
    expect(seen).toMatchObject({ method: 'PUT', url: '/a%20b/c?x=1&y=%2F', body: '{"a": 1}' });
    expect(seen.headers).toMatchObject({
      'x-forwarded-prefix': '/function/mirror',
      'x-forwarded-host': new URL(url).host,
      'x-mine': 'yes',
      'content-type': 'application/json',
    });
  });

  test('are told the client as the gateway sees it, whatever he says of himself', async () => {
    const { url } = await open();
    const seen = await mirrored(`${url}/function/mirror/`, { headers: { 'x-forwarded-for': '8.8.8.8' } });
    expect(seen.headers['x-forwarded-for']).toBe('127.0.0.1');
  });

  test.each([
    ['/function/mirror', '/'],
    ['/function/mirror/', '/'],
    ['/function/mirror?a=1', '/?a=1'],
  ])('%s is their root', async (path, seenPath) => {
    const { url } = await open();
    expect((await mirrored(`${url}${path}`)).url).toBe(seenPath);
  });

  test('hold the stop up no longer than its grace, whatever a client leaves unsent', async () => {
    const { url, close } = await open({ graceMs: 100 });
    const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {});
    socket.write('POST /function/mirror/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nhalf');
    await expect.poll(() => processes.running().length).toBe(1);
    await close();
    socket.destroy();
  });

  test('get large bodies without a content type', async () => {
    const { url } = await open();
    const body = new Uint8Array(3_000_000).fill(97);
    const seen = await mirrored(`${url}/function/mirror/`, { method: 'POST', body });
    expect(seen.body).toHaveLength(body.length);
  });

  test('are reached under their own paths too: the page at /, the inference protocol at /v2', async () => {
    const { url } = await open();
    expect((await mirrored(`${url}/app.js?v=1`)).url).toBe('/app.js?v=1');
    expect((await mirrored(url)).headers['x-forwarded-prefix']).toBeUndefined();
    expect((await mirrored(`${url}/v2/models/m/infer`, { method: 'POST', body: '{}' })).url).toBe(
      '/v2/models/m/infer',
    );
    expect(
      processes
        .running()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['predict', 'webapp']);
  });

  test('get what is sent with Expect: 100-continue, as curl does above 1 MB', async () => {
    const { url } = await open();
    const headers = { expect: '100-continue', 'content-type': 'image/jpeg' };
    const asked = httpRequest(`${url}/function/mirror/`, { method: 'POST', headers });
    asked.once('continue', () => asked.end(Buffer.alloc(2_000_000, 1)));
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.resume();
    expect(answer.statusCode).toBe(200);
  });

  test('stream their answers', async () => {
    const { url } = await open();
    const response = await fetch(`${url}/function/drip/`);
    const chunks = [];
    for await (const chunk of response.body ?? []) chunks.push(Buffer.from(chunk).toString());
    expect(chunks.join('')).toBe('one two');
    expect(chunks.length).toBeGreaterThan(1);
  });

  test('answer for themselves when they are busy', async () => {
    const { url } = await open();
    const response = await fetch(`${url}/function/busy/`);
    expect([response.status, await response.text()]).toEqual([503, 'later']);
  });

  test('that do not exist are 404, that die are 503, as problems', async () => {
    const { url } = await open();
    const unknown = await fetch(`${url}/function/nothing/`);
    expect(unknown.status).toBe(404);
    expect(await unknown.json()).toMatchObject({ code: 'not-found' });
    const dying = await fetch(`${url}/function/dying/`);
    expect(dying.status).toBe(503);
    expect(dying.headers.get('content-type')).toContain('application/problem+json');
    expect(await dying.json()).toMatchObject({ code: 'upstream-unavailable' });
  });

  test('are free again after each request', async () => {
    const { url } = await open();
    await Promise.all([fetch(`${url}/function/mirror/`), fetch(`${url}/function/busy/`)]);
    while (processes.running().some(({ inFlight }) => inFlight > 0))
      await new Promise((r) => setTimeout(r, 5));
  });
});

describe('events at /broker', () => {
  const headers = { 'ce-id': '7', 'ce-source': '/test', 'ce-type': 'rain', 'ce-specversion': '1.0' };

  test('are taken in binary and in structured mode', async () => {
    const { url } = await open();
    const binary = await fetch(`${url}/broker`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: '{"mm": 3}',
    });
    const structured = await fetch(`${url}/broker`, {
      method: 'POST',
      headers: { 'content-type': 'application/cloudevents+json' },
      body: JSON.stringify({ id: '8', source: '/test', type: 'rain', specversion: '1.0', data: { mm: 4 } }),
    });
    expect([binary.status, structured.status]).toEqual([202, 202]);
    expect(accepted.map(({ id, data }) => [id, data])).toEqual([
      ['7', { mm: 3 }],
      ['8', { mm: 4 }],
    ]);
  });

  test.each([
    ['{}', {}, 400, 'bad-event'],
    ['[]', { 'content-type': 'application/cloudevents-batch+json' }, 415, 'unsupported-media-type'],
    ['x'.repeat(1_100_000), headers, 413, 'body-too-large'],
  ])('that are none are refused (%#)', async (body, given: Record<string, string>, status, code) => {
    const { url } = await open();
    const response = await fetch(`${url}/broker`, { method: 'POST', headers: given, body });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code });
    expect(accepted).toEqual([]);
  });
});

describe('the pipeline', () => {
  const requested: Event = {
    specversion: '1.0',
    id: '1',
    source: '/test',
    type: 'dev.dandelion.retrain.requested.v1',
  };

  test('waits before the first request', async () => {
    const { url } = await open();
    const state = await pipelineAt(url);
    expect(state.champion).toBeNull();
    expect(state.steps.map((step) => [step.function, step.status])).toEqual([
      ['ingest', 'waiting'],
      ['preprocess', 'waiting'],
      ['train', 'waiting'],
      ['evaluate', 'waiting'],
      ['deploy', 'waiting'],
    ]);
  });

  test('is told live as the ledger changes', async () => {
    const { db } = database;
    const { url } = await open();
    const lease = { function: 'ingest', owner: 'me', leaseMs: 60_000 };
    const { run } = await claimStep(db, { ...lease, event: requested });
    await writeProgress(db, run, { done: 3, total: 9 });
    const abort = new AbortController();
    const response = await fetch(`${url}/pipeline`, {
      headers: { accept: 'text/event-stream' },
      signal: abort.signal,
    });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const states: PipelineState[] = [];
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      const messages = text.split('\n\n');
      text = messages.pop() ?? '';
      states.push(...messages.map((message) => JSON.parse(message.replace('data: ', ''))));
      if (states.length === 1) {
        const result = { ...requested, id: 'r', type: 'dev.dandelion.images.ingested.v1' };
        await finishStep(db, run, { status: 'succeeded', result });
      } else break;
    }
    expect(states[0]?.steps[0]).toMatchObject({
      status: 'running',
      progress: { done: 3, total: 9, note: '' },
      reused: false,
    });
    expect(
      states
        .at(-1)
        ?.steps.slice(0, 3)
        .map((step) => step.status),
    ).toEqual(['succeeded', 'queued', 'waiting']);
  });

  test('says which steps an earlier request had done', async () => {
    const { db } = database;
    const { url } = await open();
    const lease = { function: 'ingest', owner: 'me', leaseMs: 60_000 };
    const { run } = await claimStep(db, { ...lease, event: requested });
    await finishStep(db, run, { status: 'succeeded', result: { ...requested, id: 'r', type: 'other' } });
    await fetch(`${url}/broker`, {
      method: 'POST',
      headers: { 'content-type': 'application/cloudevents+json' },
      body: JSON.stringify(requested),
    });
    const state = await pipelineAt(url);
    expect(state.steps[0]).toMatchObject({ status: 'succeeded', reused: true });
  });
});

describe('guards', () => {
  /** `fetch` lets nobody set Host. */
  const statusFor = (url: string, headers: Record<string, string>, method = 'POST') =>
    new Promise<number>((resolve, reject) => {
      const sent = httpRequest(url, { method, headers }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      sent.on('error', reject).end();
    });

  test('refuse other names than this machine, whatever the method', async () => {
    const { url } = await open();
    expect(await statusFor(`${url}/pipeline`, { host: 'evil.example' }, 'GET')).toBe(403);
    expect(await statusFor(`${url}/function/mirror/`, { host: 'evil.example:8080' })).toBe(403);
    expect(await statusFor(`${url}/pipeline`, { host: 'localhost:8080' }, 'GET')).toBe(200);
    expect(await statusFor(`${url}/pipeline`, { host: '127.0.0.1' }, 'GET')).toBe(200);
  });

  test('refuse state changes from pages of other sites', async () => {
    const { url } = await open();
    const { host } = new URL(url);
    const ask = (headers: Record<string, string>) =>
      statusFor(`${url}/function/mirror/`, { host, ...headers });
    expect(await ask({ origin: 'http://evil.example' })).toBe(403);
    expect(await ask({ 'sec-fetch-site': 'cross-site' })).toBe(403);
    expect(await ask({ origin: `http://${host}`, 'sec-fetch-site': 'same-origin' })).toBe(200);
    expect(await statusFor(`${url}/broker`, { host, origin: 'http://evil.example' })).toBe(403);
  });

  test('will not be reachable from other machines without a token', async () => {
    await expect(open({ host: '0.0.0.0' })).rejects.toMatchObject({ code: 'bad-config' });
  });

  test('ask for the token when bound wider, except for predict and the page', async () => {
    const { url } = await open({ host: '0.0.0.0', token });
    const ask = (path: string, headers: Record<string, string> = {}, method = 'POST') =>
      statusFor(`${url}${path}`, headers, method);
    expect(await ask('/function/mirror/')).toBe(401);
    expect(await ask('/function/mirror/', {}, 'GET')).toBe(401);
    expect(await ask('/broker')).toBe(401);
    expect(await ask('/function/mirror/', { authorization: 'Bearer wrong' })).toBe(401);
    expect(await ask('/function/mirror/', { authorization: `Bearer ${token}` })).toBe(200);
    expect(await ask('/function/predict/')).toBe(200);
    expect(await ask('/v2/models/m/infer')).toBe(200);
    expect(await ask('/', {}, 'GET')).toBe(200);
    expect(await ask('/pipeline', {}, 'GET')).toBe(200);
  });

  test('give the token to the functions that ask for it, not to the open ones', async () => {
    const { url } = await open({ token });
    expect((await mirrored(`${url}/function/mirror/`)).headers.authorization).toBe(`Bearer ${token}`);
    expect((await mirrored(`${url}/function/predict/`)).headers.authorization).toBeUndefined();
  });

  test('name the port that is taken and what to do', async () => {
    const { url } = await open();
    const port = Number(new URL(url).port);
    await expect(open({ port })).rejects.toMatchObject({
      code: 'port-in-use',
      message: `Port ${port} is taken by another program: stop it or use --port N.`,
    });
  });
});
