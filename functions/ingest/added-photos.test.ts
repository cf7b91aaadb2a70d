import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import type { FunctionModule } from '../../shared/function/types.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { handler, init, routes } from './handler.ts';

// Without `shutdown`, which closes every database of the process, the test's own among them.
const ingest: FunctionModule = { handler, init, routes, durable: true };

let stores: TestStores;
let sink: FixtureSink;
let pods: { url: string; close(): Promise<void> }[];

beforeEach(async () => {
  stores = await testStores();
  sink = await startSink();
  pods = [];
});
afterEach(async () => {
  await Promise.all(pods.map((pod) => pod.close()));
  await sink.close();
  await stores.drop();
});

async function startPod(env: Record<string, string> = {}) {
  const quick = { INGEST_QUIET_MS: '400', LEASE_MS: '1500', HEARTBEAT_MS: '200', SWEEP_MS: '300' };
  const pod = await startFunction(ingest, {
    name: 'ingest',
    env: { ...stores.env, K_SINK: sink.url, MODEL_NAME: 'plants', ...quick, ...env },
  });
  pods.push(pod);
  return pod;
}

function record(key: string, changes: { eventName?: string; bucket?: string } = {}) {
  const { eventName = 's3:ObjectCreated:Put', bucket = 'dandelion' } = changes;
  return { eventName, s3: { bucket: { name: bucket }, object: { key: encodeURIComponent(key), size: 1 } } };
}

async function notify(url: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`${url}/hooks/s3`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const photo = (name: string | number) => ({ Records: [record(`incoming/grass/${name}.jpg`)] });
/** Requests that the sink was told of, each once. */
const requests = () => [...new Map(sink.events.map((event) => [event.id, event])).values()];
const retrains = (expected: number) =>
  expect.poll(() => requests().length, { timeout: 20_000 }).toBe(expected);

describe('photos that are added to the bucket', () => {
  it('ask for one training, however many there are and whichever pod hears of them', async () => {
    const [one, other] = await Promise.all([startPod(), startPod()]);
    const sent = Array.from({ length: 40 }, (_, n) => notify(n % 2 ? one.url : other.url, photo(n)));
    const answers = await Promise.all(sent);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map(({ body }) => body.run)).size).toBe(1);
    await retrains(1);
    expect(requests()[0]).toMatchObject({
      type: 'dev.dandelion.retrain.requested.v1',
      subject: 'plants',
      data: { model: 'plants', source: { kind: 'folder', uri: 's3://dandelion/incoming/' }, seed: 1 },
    });
    await sleep(1000);
    expect(sink.events).toHaveLength(1);
  });

  it('ask again when more come after the burst', async () => {
    const { url } = await startPod();
    await notify(url, photo(1));
    await retrains(1);
    await notify(url, photo(2));
    await retrains(2);
  });

  it('are waited for as long as they come, but not for ever', async () => {
    const { url } = await startPod({ INGEST_QUIET_MS: '60000', INGEST_LONGEST_BURST_MS: '1000' });
    await notify(url, photo(1));
    await notify(url, photo(2));
    await retrains(1);
  });

  it('are not forgotten by a pod that ends: another one goes on with the same request', async () => {
    const first = await startPod({ INGEST_QUIET_MS: '1500', GRACE_PERIOD_MS: '0' });
    await notify(first.url, photo(1));
    await first.close();
    expect(requests()).toHaveLength(0);
    await startPod();
    await retrains(1);
  });

  it('are not forgotten while the broker is down', async () => {
    const { url } = await startPod();
    sink.answer = 503;
    await notify(url, photo(1));
    await expect.poll(() => sink.events.length, { timeout: 20_000 }).toBeGreaterThan(1);
    sink.answer = 202;
    await notify(url, photo(2));
    await retrains(2);
  });

  it.each([
    ['objects elsewhere', record('images/abc')],
    ['objects beside the class folders', record('incoming/a.jpg')],
    ['marks of folders', record('incoming/grass/')],
    ['what systems leave behind', record('incoming/grass/.DS_Store')],
    ['objects that were removed', record('incoming/grass/1.jpg', { eventName: 's3:ObjectRemoved:Delete' })],
    ['other buckets', record('incoming/grass/1.jpg', { bucket: 'others' })],
  ])('are not %s', async (_what, other) => {
    const { url } = await startPod();
    expect(await notify(url, { Records: [other] })).toEqual({ status: 200, body: { photos: 0 } });
  });

  it('may come in any class and in the form that AWS sends', async () => {
    const { url } = await startPod();
    const key = 'incoming/L%C3%B6wenzahn/IMG+1.jpg';
    const aws = {
      eventName: 'ObjectCreated:CompleteMultipartUpload',
      s3: { bucket: { name: 'dandelion' }, object: { key } },
    };
    expect((await notify(url, { Records: [aws] })).body).toMatchObject({ photos: 1 });
    expect((await notify(url, { Service: 'Amazon S3', Event: 's3:TestEvent' })).body).toEqual({ photos: 0 });
  });

  it('are refused where nobody would hear of them', async () => {
    const { url } = await startPod({ K_SINK: '' });
    const { status, body } = await notify(url, photo(1));
    expect(status).toBe(500);
    expect(body).toMatchObject({ code: 'bad-config', detail: expect.stringContaining('K_SINK') });
  });

  it.each([[{}], [{ Records: [{ eventName: 1 }] }], ['text']])('are not %j', async (body) => {
    const { url } = await startPod();
    expect(await notify(url, body)).toMatchObject({ status: 422, body: { code: 'bad-data' } });
  });

  it('want the token, where one is asked for', async () => {
    const token = 'a-token-of-at-least-16';
    const { url } = await startPod({ DANDELION_TOKEN: token });
    expect((await notify(url, photo(1))).status).toBe(401);
    expect((await notify(url, photo(1), { authorization: `Bearer ${token}` })).status).toBe(200);
  });
});

describe('uploads', () => {
  const ask = async (body: unknown) => {
    const { url } = await startPod();
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${url}/uploads`, { method: 'POST', headers, body: JSON.stringify(body) });
    return { status: response.status, body: await response.json() };
  };

  it('have no addresses on a folder, and the answer says what to do instead', async () => {
    const photos = [{ label: 'grass', name: '1.jpg', sizeBytes: 1 }];
    const { status, body } = await ask({ photos });
    expect(status).toBe(422);
    expect(body).toMatchObject({
      code: 'uploads-unsupported',
      detail: expect.stringContaining('S3_ENDPOINT'),
    });
  });

  it.each([
    [{ photos: [{ label: '../x', name: '1.jpg', sizeBytes: 1 }] }, 'bad-data'],
    [{ photos: [{ label: 'grass', name: 'a/1.jpg', sizeBytes: 1 }] }, 'bad-data'],
    [{ photos: [{ label: 'unknown', name: '1.jpg', sizeBytes: 1 }] }, 'bad-label'],
    [{ photos: [] }, 'bad-data'],
    [{ photos: [{ label: 'grass', name: '1.jpg', sizeBytes: 30_000_000 }] }, 'image-too-large'],
  ])('of %j are refused', async (body, code) => {
    expect(await ask(body)).toMatchObject({ status: 422, body: { code } });
  });
});
