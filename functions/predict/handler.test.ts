import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFunction } from '../../shared/function/testing.ts';
import { promoteChampion, readModel, readModelFile, saveModel } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { readTestPhoto, storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import * as predict from './handler.ts';

const first = 'v0000000001';
const second = 'v0000000002';

let stores: TestStores;
let server: Awaited<ReturnType<typeof startFunction>>;
let photo: { label: string; bytes: Buffer };

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  for (const version of [first, second]) await storeDrawnModel(stores, { name: 'plants', version, dataset });
  photo = await readTestPhoto(stores, 'plants', dataset.version);
  const env = { ...stores.env, MODEL_NAME: 'plants', PREDICT_FOLLOW_MS: '50' };
  server = await startFunction(predict, { name: 'predict', env });
});
afterAll(async () => {
  await server?.close();
  await stores?.drop();
});

const send = (body: FormData | Uint8Array<ArrayBuffer> | string, type?: string, path = '/') =>
  fetch(`${server.url}${path}`, {
    method: 'POST',
    body,
    headers: type === undefined ? {} : { 'content-type': type },
  });
const sendJson = (value: unknown, path = '/') => send(JSON.stringify(value), 'application/json', path);
// biome-ignore lint/suspicious/noExplicitAny: answers are looked into by path, and expectations say what they must be
const answerOf = async (response: Response): Promise<any> => ({
  status: response.status,
  ...((await response.json()) as object),
});
const bytesOf = (buffer: Buffer) => new Uint8Array(buffer);

describe('predict before the first deployment', () => {
  it('is ready, and says that there is no champion and when to ask again', async () => {
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
    const response = await send(bytesOf(photo.bytes), 'image/jpeg');
    expect(response.headers.get('retry-after')).not.toBeNull();
    expect(await answerOf(response)).toMatchObject({ status: 503, code: 'no-champion' });
    expect(await answerOf(await fetch(`${server.url}/v2/health/ready`))).toMatchObject({
      status: 503,
      ready: false,
    });
  });
});

describe('predict with a champion', () => {
  beforeAll(async () => {
    await promoteChampion(stores.objects, 'plants', first);
  });

  it('labels the bytes of a photo', async () => {
    const answer = await answerOf(await send(bytesOf(photo.bytes), 'image/jpeg'));
    expect(answer).toMatchObject({
      status: 200,
      label: photo.label,
      model: { name: 'plants', version: first },
    });
    const probabilities: number[] = Object.values(answer.probabilities);
    expect(Object.keys(answer.probabilities)).toEqual(['dandelion', 'grass']);
    expect(probabilities.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
    expect(answer.latencyMs).toBeGreaterThan(0);
  });

  it('takes a form with one file, and answers a list for several', async () => {
    const file = new File([bytesOf(photo.bytes)], 'photo.jpg', { type: 'image/jpeg' });
    const one = new FormData();
    one.append('photo', file);
    expect(await answerOf(await send(one))).toMatchObject({ status: 200, label: photo.label });
    const two = new FormData();
    two.append('photo', file);
    two.append('photo', new File(['not a photo'], 'note.txt'));
    const { predictions } = await answerOf(await send(two));
    expect(predictions[0]).toMatchObject({ label: photo.label });
    expect(predictions[1]).toMatchObject({ problem: { code: 'not-an-image' } });
  });

  it('takes base64 in JSON, one or many', async () => {
    const image = photo.bytes.toString('base64');
    expect(await answerOf(await sendJson({ image }))).toMatchObject({ status: 200, label: photo.label });
    const many = await answerOf(await sendJson({ images: [image, image, image] }));
    expect(many.predictions.map(({ label }: { label: string }) => label)).toEqual(Array(3).fill(photo.label));
  });

  it('answers a CloudEvent with a CloudEvent', async () => {
    const response = await fetch(server.url, {
      method: 'POST',
      body: bytesOf(photo.bytes),
      headers: {
        'content-type': 'image/jpeg',
        ...{ 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/camera', 'ce-type': 'photo.taken' },
      },
    });
    expect(response.headers.get('ce-type')).toBe('dev.dandelion.prediction.made.v1');
    expect(await response.json()).toMatchObject({ label: photo.label });
  });

  it('goes over to the next champion without failing a request', async () => {
    let stop = false;
    const statuses = new Map<string, number>();
    const ask = async () => {
      while (!stop) {
        const { status, model } = await answerOf(await send(bytesOf(photo.bytes), 'image/jpeg'));
        const key = `${status} ${model?.version}`;
        statuses.set(key, (statuses.get(key) ?? 0) + 1);
        if (model?.version === second && (statuses.get(key) ?? 0) > 5) stop = true;
      }
    };
    const askers = Promise.all([ask(), ask(), ask(), ask()]);
    await promoteChampion(stores.objects, 'plants', second);
    await askers;
    expect([...statuses.keys()].sort().at(-1)).toBe(`200 ${second}`);
    expect([...statuses.keys()].every((key) => key.startsWith('200 '))).toBe(true);
  });

  it('keeps the champion when the next one cannot be loaded', async () => {
    const { bytes, etag } = await stores.objects.get('models/plants/champion.json');
    const broken = { ...JSON.parse(bytes.toString()), version: 'v00000000ff' };
    await stores.objects.putIf('models/plants/champion.json', Buffer.from(JSON.stringify(broken)), { etag });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const answer = await answerOf(await send(bytesOf(photo.bytes), 'image/jpeg'));
    expect(answer).toMatchObject({ status: 200, model: { version: second } });
    await stores.objects.put('models/plants/champion.json', bytes);
  });
});

/** Ends in the middle of a photo. */
const cutForm = Buffer.from('--x\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\nbytes');

describe('predict and bad input', () => {
  it.each([
    ['text', 'image/jpeg', Buffer.from('hello'), 422, 'not-an-image'],
    ['no bytes', 'image/jpeg', Buffer.alloc(0), 422, 'empty-file'],
    ['HTML', 'image/png', Buffer.from('<!doctype html><html></html>'), 422, 'not-an-image'],
    ['another media type', 'application/pdf', Buffer.from('%PDF-1.4'), 415, 'unsupported-media-type'],
    ['JSON without a photo', 'application/json', Buffer.from('{"foto": 1}'), 422, 'bad-data'],
    ['broken JSON', 'application/json', Buffer.from('{'), 400, 'bad-request'],
    ['a form that is none', 'multipart/form-data; boundary=x', Buffer.from('--y'), 400, 'bad-request'],
    ['a form cut off within a file', 'multipart/form-data; boundary=x', cutForm, 400, 'bad-request'],
    ['a form without boundary', 'multipart/form-data', Buffer.from('--y'), 400, 'bad-request'],
    [
      'a URL where they are off',
      'application/json',
      Buffer.from('{"url":"http://127.0.0.1/"}'),
      403,
      'forbidden',
    ],
  ])('answers %s with a problem', async (_name, type, body, status, code) => {
    const response = await send(bytesOf(body), type);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    const problem = await answerOf(response);
    expect(problem).toMatchObject({ status, code });
    expect(problem.detail.length).toBeGreaterThan(20);
  });

  it('refuses a photo that is cut off, and one that is huge once decoded', async () => {
    const cut = photo.bytes.subarray(0, photo.bytes.length / 2);
    expect(await answerOf(await send(bytesOf(cut), 'image/jpeg'))).toMatchObject({
      status: 422,
      code: 'truncated-image',
    });
    const huge = await sharp({
      create: { width: 20_000, height: 20_000, channels: 3, background: 'red' },
      limitInputPixels: false,
    })
      .png({ compressionLevel: 1 })
      .toBuffer();
    expect(await answerOf(await send(bytesOf(huge), 'image/png'))).toMatchObject({
      status: 422,
      code: 'too-many-pixels',
    });
  });

  it('refuses a body larger than a photo may be, and more photos than one request may carry', async () => {
    const large = await send(new Uint8Array(22_000_000), 'image/jpeg').catch(() => undefined);
    if (large !== undefined) expect(large.status).toBe(413);
    const image = photo.bytes.toString('base64');
    expect(await answerOf(await sendJson({ images: Array(33).fill(image) }))).toMatchObject({
      code: 'bad-data',
    });
    expect((await send(bytesOf(photo.bytes), 'image/jpeg')).status).toBe(200);
  });

  it('tells other paths and methods apart', async () => {
    expect((await fetch(`${server.url}/nowhere`)).status).toBe(404);
    expect((await fetch(server.url, { method: 'DELETE' })).status).toBe(405);
    expect(await answerOf(await fetch(server.url))).toMatchObject({
      model: { name: 'plants', version: second },
    });
  });
});

describe('the Open Inference Protocol', () => {
  const infer = (value: unknown, path = '/v2/models/plants/infer') => sendJson(value, path);

  it('describes server, health, model and repository', async () => {
    const get = async (path: string) => answerOf(await fetch(`${server.url}${path}`));
    expect(await get('/v2')).toMatchObject({ status: 200, name: 'dandelion' });
    expect(await get('/v2/health/live')).toMatchObject({ status: 200, live: true });
    expect(await get('/v2/health/ready')).toMatchObject({ status: 200, ready: true });
    expect(await get('/v2/models/plants')).toMatchObject({ name: 'plants', versions: [second] });
    expect(await get('/v2/models/plants/ready')).toMatchObject({ name: 'plants', ready: true });
    expect(await (await sendJson({}, '/v2/repository/index')).json()).toEqual([
      { name: 'plants', version: second, state: 'READY', reason: '' },
    ]);
  });

  it('infers from encoded photos', async () => {
    const data = [photo.bytes.toString('base64'), (await drawPhoto('grass', 900)).toString('base64')];
    const answer = await answerOf(
      await infer({ id: 'mine', inputs: [{ name: 'image', shape: [2], datatype: 'BYTES', data }] }),
    );
    expect(answer).toMatchObject({ status: 200, id: 'mine', model_name: 'plants', model_version: second });
    const [label, probabilities] = answer.outputs;
    expect(label).toMatchObject({ name: 'label', datatype: 'BYTES', shape: [2] });
    expect(label.data[0]).toBe(photo.label);
    expect(probabilities).toMatchObject({ name: 'probabilities', datatype: 'FP32', shape: [2, 2] });
  });

  it('infers from pixels, nested or flat, and gives only the outputs asked for', async () => {
    const data = Array(224 * 224 * 3).fill(120);
    const input = { name: 'image', shape: [1, 224, 224, 3], datatype: 'UINT8', data };
    const answer = await answerOf(await infer({ inputs: [input], outputs: [{ name: 'probabilities' }] }));
    expect(answer.outputs.map(({ name }: { name: string }) => name)).toEqual(['probabilities']);
  });

  it('keeps the order of classes that are called by numbers', async () => {
    const numbered = 'v0000000010';
    const record = await readModel(stores.objects, 'plants', first);
    const head = await readModelFile(stores.objects, record, 'head.bin');
    const classes = ['10', '2'];
    await saveModel(stores.objects, { ...record, version: numbered, classes }, { 'head.bin': head });
    const data = [photo.bytes.toString('base64')];
    const request = { inputs: [{ name: 'image', shape: [1], datatype: 'BYTES', data }] };
    const [named, called] = await Promise.all(
      [first, numbered].map(async (version) =>
        answerOf(await infer(request, `/v2/models/plants/versions/${version}/infer`)),
      ),
    );
    expect(called.outputs[1].data).toEqual(named.outputs[1].data);
    expect(called.outputs[0].data).toEqual([classes[record.classes.indexOf(photo.label)]]);
  });

  it('answers with the version asked for by path', async () => {
    const data = [photo.bytes.toString('base64')];
    const request = { inputs: [{ name: 'image', shape: [1], datatype: 'BYTES', data }] };
    const older = await answerOf(await infer(request, `/v2/models/plants/versions/${first}/infer`));
    expect(older).toMatchObject({ status: 200, model_version: first });
    const unknown = await answerOf(await infer(request, '/v2/models/plants/versions/v00000000ff/infer'));
    expect(unknown).toMatchObject({ status: 404, code: 'model-unknown' });
    expect(unknown.error).toBe(unknown.detail);
  });

  it.each([
    ['no inputs', { inputs: [] }],
    ['another datatype', { inputs: [{ name: 'image', shape: [1], datatype: 'FP32', data: [1] }] }],
    [
      'a shape that does not fit',
      { inputs: [{ name: 'image', shape: [1, 2, 2, 3], datatype: 'UINT8', data: [] }] },
    ],
    [
      'data that is not base64',
      { inputs: [{ name: 'image', shape: [1], datatype: 'BYTES', data: ['%%%'] }] },
    ],
    ['too many photos', { inputs: [{ name: 'image', shape: [99], datatype: 'BYTES', data: [] }] }],
  ])('refuses %s with the error member of the protocol', async (_name, request) => {
    const problem = await answerOf(await infer(request));
    expect(problem).toMatchObject({ status: 422, code: 'bad-data' });
    expect(problem.error).toBe(problem.detail);
  });
});

describe('predict pinned to a version', () => {
  it('serves that version whatever the champion is', async () => {
    const env = { ...stores.env, MODEL_NAME: 'plants', MODEL_VERSION: first };
    const pinned = await startFunction(predict, { name: 'predict', env });
    const response = await fetch(pinned.url, {
      method: 'POST',
      body: bytesOf(photo.bytes),
      headers: { 'content-type': 'image/jpeg' },
    });
    expect(await answerOf(response)).toMatchObject({ status: 200, model: { version: first } });
    await pinned.close();
  });

  it('never becomes ready when the version cannot be loaded', async () => {
    const env = { ...stores.env, MODEL_NAME: 'plants', MODEL_VERSION: 'v00000000ff' };
    await expect(startFunction(predict, { name: 'predict', env })).rejects.toMatchObject({
      code: 'model-broken',
    });
  });
});
