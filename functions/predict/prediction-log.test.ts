import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PredictionRecord, parseEventData } from '../../shared/events.ts';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { promoteChampion } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { readTestPhoto, storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import { measureStatistics } from '../../shared/vision/quality.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import * as predict from './handler.ts';
import { BATCH } from './prediction-log.ts';

const version = 'v0000000001';
const salt = 'a salt of sixteen characters';
let stores: TestStores;
let photo: Uint8Array<ArrayBuffer>;
let label: string;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  await storeDrawnModel(stores, { name: 'plants', version, dataset });
  const stored = await readTestPhoto(stores, 'plants', dataset.version);
  photo = new Uint8Array(stored.bytes);
  label = stored.label;
});
afterAll(() => stores?.drop());

/** Runs predict with a sink while something asks it, stops it, and gives the records that reached the sink. */
async function recordsOf(
  env: Record<string, string>,
  ask: (url: string, sink: FixtureSink) => Promise<unknown>,
): Promise<PredictionRecord[]> {
  const sink = await startSink();
  const all = { ...stores.env, MODEL_NAME: 'plants', K_SINK: sink.url, ...env };
  const server = await startFunction(predict, { name: 'predict', env: all });
  try {
    await ask(server.url, sink);
  } finally {
    await server.close();
    await sink.close();
  }
  return sink.events.flatMap((event) => parseEventData(event, 'dev.dandelion.predictions.made.v1').records);
}

const send = (url: string, body: Uint8Array<ArrayBuffer> | string, headers: Record<string, string> = {}) =>
  fetch(url, { method: 'POST', body, headers: { 'content-type': 'image/jpeg', ...headers } });

describe('the prediction log', () => {
  it('tells of a request that no model could answer as a fault of ours', async () => {
    const records = await recordsOf({ K_REVISION: 'predict-00007' }, (url) => send(url, photo));
    expect(records).toMatchObject([
      {
        ...{ outcome: 'failed', code: 'no-champion', revision: 'predict-00007', label: null },
        model: { name: 'plants', version: null },
      },
    ]);
  });

  it('tells what was answered, with statistics of the photo and without the photo or the client', async () => {
    await promoteChampion(stores.objects, 'plants', version);
    const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
    let answer: unknown;
    const [record, ...others] = await recordsOf({ PREDICTION_LOG_SALT: salt }, async (url) => {
      const headers = { traceparent, 'x-forwarded-for': '203.0.113.7, 10.0.0.1' };
      answer = await (await send(url, photo, headers)).json();
    });
    expect(others).toEqual([]);
    expect(record).toMatchObject({
      ...{ outcome: 'answered', code: null, label, revision: null, weight: 1, traceId: 'a'.repeat(32) },
      model: { name: 'plants', version },
      clientHash: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(record?.schemaVersion).toBe(3);
    expect(record?.sketchBytes?.id).toBe(SKETCH.id);
    const sketch = new Float32Array(
      new Uint8Array(Buffer.from(record?.sketchBytes?.float32 ?? '', 'base64')).buffer,
    );
    expect([sketch.length, new Set(sketch).size]).toEqual([SKETCH.length, SKETCH.length]);
    // By which feedback names it.
    expect(answer).toMatchObject({ id: record?.id, label });
    expect(Object.keys(record?.scores ?? {}).sort()).toEqual(['dandelion', 'grass']);
    const whole = measureStatistics(await decodePhoto(photo));
    expect(record?.input.shortSide).toBe(whole.shortSide);
    expect(Math.abs((record?.input.brightness ?? 0) - whole.brightness)).toBeLessThan(0.02);
    expect(JSON.stringify(record)).not.toContain('203.0.113.7');
  });

  it('gives one client one hash, and none without a key', async () => {
    const from = (client: string) => (url: string) => send(url, photo, { 'x-forwarded-for': client });
    const keyed = { PREDICTION_LOG_SALT: salt };
    const [one] = await recordsOf(keyed, from('203.0.113.7'));
    const [same] = await recordsOf(keyed, from('198.51.100.9, 203.0.113.7'));
    const [other] = await recordsOf(keyed, from('203.0.113.8'));
    expect(one?.clientHash).toBe(same?.clientHash);
    expect(one?.clientHash).not.toBe(other?.clientHash);
    expect((await recordsOf({}, from('203.0.113.7')))[0]?.clientHash).toBeUndefined();
  });

  it('tells bad input apart, each photo of a request on its own, over both protocols', async () => {
    const image = Buffer.from(photo).toString('base64');
    const json = { 'content-type': 'application/json' };
    const records = await recordsOf({}, async (url) => {
      await send(url, 'not a photo');
      await send(url, JSON.stringify({ images: [image, 'bm90IGEgcGhvdG8='] }), json);
      const tensor = { name: 'image', shape: [1], datatype: 'BYTES', data: [image] };
      await send(`${url}/v2/models/plants/infer`, JSON.stringify({ inputs: [tensor] }), json);
      await fetch(url);
    });
    expect(records.map(({ outcome, code }) => `${outcome} ${code}`).sort()).toEqual([
      ...['answered null', 'answered null', 'refused not-an-image', 'refused not-an-image'],
    ]);
  });

  it('tells of an inference that asks for an output there is none of as refused, not answered as well', async () => {
    const records = await recordsOf({}, (url) => {
      const tensor = {
        name: 'image',
        shape: [1],
        datatype: 'BYTES',
        data: [Buffer.from(photo).toString('base64')],
      };
      const body = JSON.stringify({ inputs: [tensor], outputs: [{ name: 'colour' }] });
      return send(`${url}/v2/models/plants/infer`, body, { 'content-type': 'application/json' });
    });
    expect(records.map(({ outcome, code }) => `${outcome} ${code}`)).toEqual(['refused bad-data']);
  });

  it('tells of a sample with the weight that makes up for it, and of nothing at a rate of 0', async () => {
    const ask = async (url: string) => {
      for (let request = 0; request < 60; request++) await (await send(url, 'not a photo')).arrayBuffer();
    };
    const records = await recordsOf({ PREDICTION_LOG_SAMPLE: '0.5' }, ask);
    // Outside of it once in 10^7 runs.
    expect(records.length).toBeGreaterThan(9);
    expect(records.length).toBeLessThan(51);
    expect(new Set(records.map(({ weight }) => weight))).toEqual(new Set([2]));
    expect(await recordsOf({ PREDICTION_LOG_SAMPLE: '0' }, ask)).toEqual([]);
  });

  it('sends what waits after a while, and a full batch at once', async () => {
    await recordsOf({ PREDICTION_LOG_FLUSH_MS: '20' }, async (url, sink) => {
      await send(url, 'not a photo');
      await expect.poll(() => sink.events.length).toBe(1);
    });
    await recordsOf({ PREDICTION_LOG_FLUSH_MS: '3600000' }, async (url, sink) => {
      for (let request = 0; request < BATCH; request++) await (await send(url, 'not a photo')).arrayBuffer();
      await expect.poll(() => sink.events.length).toBe(1);
    });
  });

  it('answers as ever while the sink is away, and counts what it drops', async () => {
    const env = { ...stores.env, MODEL_NAME: 'plants', K_SINK: 'http://127.0.0.1:9', NOTICE_BUFFER: '1' };
    const server = await startFunction(predict, {
      name: 'predict',
      env: { ...env, PREDICTION_LOG_FLUSH_MS: '1' },
    });
    try {
      for (let request = 0; request < 8; request++) expect((await send(server.url, photo)).status).toBe(200);
      const dropped = async () =>
        Number(/outcome="dropped".* (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);
      await expect.poll(dropped).toBeGreaterThan(0);
    } finally {
      await server.close();
    }
  });
});
