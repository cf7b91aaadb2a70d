import { afterAll, beforeAll, expect, it } from 'vitest';
import { startFunction } from '../../shared/function/testing.ts';
import { promoteChampion } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { readTestPhoto, storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import * as predict from './handler.ts';

const version = 'v0000000001';
const head = `models/plants/${version}/head.bin`;

let stores: TestStores;
let sound: Buffer;
let photo: { label: string; bytes: Buffer };
let server: Awaited<ReturnType<typeof startFunction>>;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  await storeDrawnModel(stores, { name: 'plants', version, dataset });
  await promoteChampion(stores.objects, 'plants', version);
  photo = await readTestPhoto(stores, 'plants', dataset.version);
  sound = (await stores.objects.get(head)).bytes;
  await stores.objects.put(head, sound.subarray(0, 1000));
  const env = { ...stores.env, MODEL_NAME: 'plants', PREDICT_FOLLOW_MS: '50' };
  server = await startFunction(predict, { name: 'predict', env });
});
afterAll(async () => {
  await server?.close();
  await stores?.drop();
});

const headers = { 'content-type': 'image/jpeg' };
const ask = () => fetch(server.url, { method: 'POST', headers, body: new Uint8Array(photo.bytes) });

it('says that the champion is damaged and what to do, not that there is none; and serves it once it is whole', async () => {
  const refused = await ask();
  expect(refused.status).toBe(503);
  expect(refused.headers.get('retry-after')).not.toBeNull();
  expect(await refused.json()).toMatchObject({
    code: 'model-broken',
    detail: expect.stringMatching(`${version} cannot be loaded.*digest differs.*npm run rollback`),
  });

  await stores.objects.put(head, sound);
  const served = await ask();
  expect(await served.json()).toMatchObject({ label: photo.label, model: { version } });
});
