import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { promoteChampion } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { predictSettings } from './config.ts';
import { openModels } from './models.ts';

const champion = 'v0000000001';
const other = 'v0000000002';
let stores: TestStores;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  for (const version of [champion, other]) {
    await storeDrawnModel(stores, { name: 'plants', version, dataset });
  }
  await promoteChampion(stores.objects, 'plants', champion);
});
afterAll(() => stores?.drop());

describe('models that were closed', () => {
  it.each([undefined, champion, other])('answer nobody any more, asked for version %s', async (version) => {
    const settings = predictSettings.parse({ MODEL_NAME: 'plants' });
    const models = await openModels(stores.objects, settings, pino({ level: 'silent' }));
    await models.withModel(other, async () => {});
    await models.close();
    const late = models.withModel(version, async ({ record }) => record.version);
    await expect(late).rejects.toMatchObject({ code: 'shutting-down' });
  });
});
