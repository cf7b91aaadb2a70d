import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DatasetImage, readDataset } from '../../shared/stores/datasets.ts';
import type { ServedModel } from '../../shared/stores/served-model.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { modelDraft, storeDrawnDataset } from '../../shared/stores/testing-models.ts';
import { answerPhotos } from './score.ts';

let stores: TestStores;
let images: DatasetImage[];

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  images = await readDataset(stores.db, 'plants', dataset.version, 'test');
});
afterAll(() => stores.drop());

/** A model that finds the first photo unlike its classes, and the others like them. */
function modelWith(unknown?: { threshold: number; acceptance: number }): ServedModel {
  let asked = 0;
  return {
    record: { ...modelDraft('plants', 'v0000000001'), classes: ['grass', 'dandelion'], unknown, files: {} },
    engine: { inputSize: 224 },
    answer: async () => ({
      scores: Float32Array.of(0.75, 0.25),
      sketch: new Float32Array(),
      familiarity: asked++ === 0 ? 0.39 : 0.41,
    }),
  } as unknown as ServedModel;
}

it('counts the photos that predict would call unknown, though their likeliest class is what is scored', async () => {
  const score = (model: ServedModel) =>
    answerPhotos(model, stores.objects, images, ['dandelion', 'grass'], {
      signal: new AbortController().signal,
      onPhoto: () => {},
    });
  const answers = await score(modelWith({ threshold: 0.4, acceptance: 0.95 }));
  expect(answers.unknown).toBe(1);
  expect([...answers.probabilities]).toEqual(images.flatMap(() => [0.25, 0.75]));
  expect((await score(modelWith())).unknown).toBeNull();
});
