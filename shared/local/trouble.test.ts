import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createEvent, parseEventData } from '../events.ts';
import { listRejections } from '../stores/images.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { drawnClasses } from '../vision/drawn.ts';
import { requestType } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import { drawFolder, quickPipelineEnv, waitForPipeline } from './testing-pipelines.ts';

let folder: string;
let database: TestDatabase;
let platform: Platform;
/** A server of this machine that no address of a stranger may reach. */
let trap: Server;
let trapPort: number;
let trapped = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-trouble-'));
  database = await testDatabase();
  trap = createServer((_request, response) => {
    trapped += 1;
    response.end();
  }).listen(0);
  await once(trap, 'listening');
  const address = trap.address();
  trapPort = typeof address === 'object' && address !== null ? address.port : 0;
  const env = {
    ...(await quickPipelineEnv(folder)),
    DATABASE_URL: database.url,
    PREDICT_ALLOW_URL: 'true',
    INGEST_BACKOFF_MS: '1',
  };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
});
afterAll(async () => {
  await platform?.stop();
  trap?.close();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

async function post(path: string, headers: Record<string, string>, body: string | Buffer) {
  const response = await fetch(`${platform.gatewayUrl}${path}`, {
    method: 'POST',
    headers,
    body: typeof body === 'string' ? body : new Uint8Array(body),
  });
  const text = await response.text();
  return { status: response.status, code: text === '' ? '' : (JSON.parse(text) as { code: string }).code };
}

const processOf = (name: string) =>
  platform.processes.running().find((each) => each.name === name)?.processId ?? 'none';

describe('bad requests to predict', () => {
  const form = 'multipart/form-data; boundary=x';
  const cutForm = '--x\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\nbytes';

  test.each<[string, string, () => string | Buffer, number, string]>([
    ['a photo of 30 MB', 'image/jpeg', () => Buffer.alloc(30_000_000, 7), 413, 'body-too-large'],
    ['a form cut off within its photo', form, () => cutForm, 400, 'bad-request'],
    ['a form that is none', form, () => 'x', 400, 'bad-request'],
    ['JSON that is none', 'application/json', () => '{"image": ', 400, 'bad-request'],
    ['a page', 'text/html', () => '<html></html>', 415, 'unsupported-media-type'],
  ])('%s is refused by name, and the process lives on', async (_name, type, body, status, code) => {
    await fetch(`${platform.gatewayUrl}/function/predict/`);
    const before = processOf('predict');
    expect(await post('/function/predict/', { 'content-type': type }, body())).toEqual({ status, code });
    // A second request shows that the first one did not end the process behind its answer.
    expect((await fetch(`${platform.gatewayUrl}/function/predict/health/live`)).status).toBe(200);
    expect(processOf('predict')).toBe(before);
  });
});

describe('a malformed CloudEvent', () => {
  const valid = { 'ce-id': '1', 'ce-source': '/x', 'ce-type': requestType, 'ce-specversion': '1.0' };
  const structured = { 'content-type': 'application/cloudevents+json' };
  const json = { 'content-type': 'application/json' };

  describe.each(['/broker', '/function/ingest/'])('to %s', (path) => {
    test.each<[string, Record<string, string>, string, number, string]>([
      ['without an id', { ...valid, 'ce-id': '' }, '{}', 400, 'bad-event'],
      ['of another specification', { ...valid, 'ce-specversion': '9' }, '{}', 400, 'bad-event'],
      ['whose JSON is cut off', structured, '{"specversion":"1.0","id":', 400, 'bad-event'],
      ['that is an array', structured, '[]', 400, 'bad-event'],
      ['that is none', json, '{}', 400, 'bad-event'],
      [
        'in another format',
        { 'content-type': 'application/cloudevents+avro' },
        'x',
        415,
        'unsupported-media-type',
      ],
    ])('%s is refused and leaves nothing', async (_name, headers, body, status, code) => {
      expect(await post(path, headers, body)).toEqual({ status, code });
      expect(await readdir(join(folder, 'data/broker'))).toEqual([]);
      const [ledger] = await platform.database`select count(*)::int as runs from steps`;
      expect(ledger).toEqual({ runs: 0 });
    });
  });
});

describe('addresses of this machine and its network', () => {
  const hosts = [
    ...['127.0.0.1', '127.1', '2130706433', '0x7f000001', '0177.0.0.1', '127.0.0.1.', '%31%32%37.0.0.1'],
    ...['0', '0.0.0.0', 'localhost', 'LOCALHOST', '[::1]', '[::]', '[::ffff:127.0.0.1]', '[64:ff9b::7f00:1]'],
    ...['10.0.0.1', '192.168.1.1', '169.254.169.254', '2852039166', '[fe80::1]', '[fd00:ec2::254]'],
  ];
  const urls = () => hosts.map((host) => `http://${host}:${trapPort}/photo.jpg`);

  test('are refused to those who predict by address', async () => {
    const refused = { status: 422, code: 'address-refused' };
    const headers = { 'content-type': 'application/json' };
    for (const url of urls()) {
      const answer = await post('/function/predict/', headers, JSON.stringify({ url }));
      expect([url, answer]).toEqual([url, refused]);
    }
    expect(trapped).toBe(0);
  });

  test('are refused one by one in a manifest, and its photos are taken', async () => {
    const label = drawnClasses[0];
    const photos = join(folder, 'listed');
    await drawFolder(photos, { dandelion: 10, grass: 10 }, 1);
    await mkdir(join(folder, 'manifests'), { recursive: true });
    const files = ['dandelion', 'grass'].flatMap((name) =>
      Array.from({ length: 10 }, (_, index) => `../listed/${name}/000${index}.jpg,${name}`),
    );
    const path = join(folder, 'manifests/list.csv');
    await writeFile(path, ['url,label', ...files, ...urls().map((url) => `${url},${label}`)].join('\n'));
    const source = { kind: 'manifest' as const, uri: pathToFileURL(path).href };
    const request = createEvent({
      type: requestType,
      source: '/tests',
      id: 'inner-addresses',
      subject: 'inner',
      data: { model: 'inner', source, seed: 1 },
    });
    await platform.broker.publish(request);
    const { ingest } = await waitForPipeline(platform.database, request, 45_000);
    const result = parseEventData(ingest?.result ?? undefined, 'dev.dandelion.images.ingested.v1');
    expect(result).toMatchObject({ images: 20, rejectedCount: hosts.length });
    const rejections = await listRejections(platform.database, result.ingestion);
    expect(new Set(rejections.map(({ code }) => code))).toEqual(new Set(['address-refused']));
    expect(trapped).toBe(0);
  });
});
