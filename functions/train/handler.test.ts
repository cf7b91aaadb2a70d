import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvent, type EventData } from '../../shared/events.ts';
import { invoke } from '../../shared/function/testing.ts';
import { readDataset } from '../../shared/stores/datasets.ts';
import { readReference } from '../../shared/stores/drift-reference.ts';
import { storeFeatures } from '../../shared/stores/features.ts';
import {
  listModelVersions,
  type ModelRecord,
  modelRecord,
  promoteChampion,
  readModel,
  readModelFile,
} from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset } from '../../shared/stores/testing-models.ts';
import { openTracker } from '../../shared/stores/tracking.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import * as train from './handler.ts';

let stores: TestStores;
let stored: EventData<'dev.dandelion.features.stored.v1'>;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 16, grass: 16, daisy: 16 };
  stored = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
});
afterAll(() => stores.drop());

function request(data: EventData<'dev.dandelion.features.stored.v1'>, id = 'event-1') {
  return createEvent({ type: 'dev.dandelion.features.stored.v1', source: '/test', id, data });
}

describe('train', () => {
  it('makes a model of stored features, three classes as well as two, and says so in a result event', async () => {
    const { event, progress } = await invoke(train, {
      name: 'train',
      event: request(stored),
      env: stores.env,
    });
    expect(event?.type).toBe('dev.dandelion.model.trained.v1');
    const data = event?.data as EventData<'dev.dandelion.model.trained.v1'>;
    expect(data.model).toEqual({ name: 'plants', version: event?.subject });
    expect(data.dataset.version).toBe(stored.dataset.version);
    expect(progress.at(-1)?.done).toBe(progress.at(-1)?.total);
    expect(progress.at(-1)?.note).toMatch(/^training the head: loss \d\.\d{4}$/);
    const { runId, model } = data;
    const run = await openTracker({ TRACKING_DIR: stores.env.TRACKING_DIR ?? '' }).resumeRun({
      ...{ experiment: 'plants', runId, runName: model.version, tags: {} },
    });
    const steps = async (key: string) => (await run.metricHistory(key)).map(({ step }) => step);
    // Seven penalties in five folds.
    expect(await steps('cv/held_out_loss')).toEqual(Array.from({ length: 35 }, (_, fit) => fit + 1));
    const iterations = await steps('train/loss');
    expect(iterations.length).toBeGreaterThan(3);
    expect(iterations).toEqual([...iterations.keys()]);

    const record = await readModel(stores.objects, 'plants', data.model.version);
    expect(modelRecord.parse(record).classes).toEqual(['daisy', 'dandelion', 'grass']);
    expect((await readModelFile(stores.objects, record, 'MODEL_CARD.md')).toString()).toContain(
      data.model.version,
    );
    expect(record.metrics.accuracy).toBeGreaterThan(0.6);
  });

  it('leaves beside the model what photos and answers were like, answers as of photos it had not seen', async () => {
    const { event } = await invoke(train, { name: 'train', event: request(stored), env: stores.env });
    const version = event?.subject ?? '';
    const photos = await readReference(stores.objects, 'plants', version, SKETCH.id);
    const { splits } = stored.dataset;
    expect(photos).toHaveLength(splits.train + splits.validation);
    for (const { statistics, label, confidence, sketch } of photos ?? []) {
      expect(statistics.brightness).toBeGreaterThan(0);
      // As predict measures it, to the last digit: tests of drift take any difference for one.
      expect(statistics.aspectRatio).toBe(400 / 300);
      expect(['daisy', 'dandelion', 'grass']).toContain(label);
      expect(confidence).toBeGreaterThan(1 / 3);
      expect(sketch).toHaveLength(SKETCH.length);
    }
    const mean = (photos ?? []).reduce((sum, { confidence }) => sum + confidence / (photos?.length ?? 1), 0);
    const { training } = await readModel(stores.objects, 'plants', version);
    // Calibrated, it is about as sure as it is right; of photos that it was trained on it would be surer.
    expect(mean - training.crossValidation.accuracy).toBeLessThan(0.1);
    const elsewise = await readReference(stores.objects, 'plants', version, 'another-sketch');
    expect(new Set(elsewise?.map(({ sketch }) => sketch))).toEqual(new Set([null]));
    expect(await readReference(stores.objects, 'plants', 'v00000000ff', SKETCH.id)).toBeUndefined();
  });

  it('makes the same head of the same features to the bit, under another version for another event', async () => {
    const records: ModelRecord[] = [];
    for (const id of ['event-a', 'event-b']) {
      const { event } = await invoke(train, { name: 'train', event: request(stored, id), env: stores.env });
      records.push(await readModel(stores.objects, 'plants', event?.subject ?? ''));
    }
    const [first, second] = records;
    expect(first?.files['head.bin']?.digest).toBe(second?.files['head.bin']?.digest);
    expect(first?.version).not.toBe(second?.version);
  });

  it('trains nothing when the champion knows the photos, where the request leaves it to that', async () => {
    const answerTo = (data: typeof stored, id: string) =>
      invoke(train, { name: 'train', event: request(data, id), env: stores.env });
    const first = await answerTo({ ...stored, force: false }, 'first');
    expect(first.event?.type).toBe('dev.dandelion.model.trained.v1');
    const version = first.event?.subject ?? '';
    await promoteChampion(stores.objects, 'plants', version);

    const again = await answerTo({ ...stored, force: false }, 'again');
    expect(again.event).toMatchObject({
      type: 'dev.dandelion.training.skipped.v1',
      data: {
        model: { name: 'plants', version },
        reason: expect.stringContaining(stored.dataset.version),
      },
    });
    const others = [
      await answerTo(stored, 'nobody said so'),
      await answerTo({ ...stored, force: true }, 'forced'),
      await answerTo({ ...stored, force: false, seed: stored.seed + 1 }, 'another seed'),
    ];
    expect(others.map(({ event }) => event?.type)).toEqual(Array(3).fill('dev.dandelion.model.trained.v1'));
  });

  it('says which features are missing and makes nothing', async () => {
    const data = { ...stored, extractor: { id: 'another-v1', dimension: 7, inputSize: 224 } };
    const { problem } = await invoke(train, {
      name: 'train',
      event: request(data, 'event-c'),
      env: stores.env,
    });
    expect(problem).toMatchObject({ code: 'object-missing', status: 503 });
    expect(problem?.detail).toContain('another-v1');
  });

  it.each([
    ['are no numbers', [1, Number.NaN, 2], 'is NaN'],
    ['are the same for all photos', [1, 3, 2], 'the very same features'],
  ])('refuses features that %s, and makes nothing', async (what, numbers, reason) => {
    const broken = { id: `broken: ${what}`, dimension: 3, inputSize: 224 };
    const images = await readDataset(stores.db, 'plants', stored.dataset.version);
    const vector = Float32Array.from(numbers);
    const rows = images.map(({ sha256 }) => ({ sha256, vector, augmentedVector: vector, statistics: {} }));
    await storeFeatures(stores.db, 'plants', broken.id, rows);
    const before = await listModelVersions(stores.objects, 'plants');
    const event = request({ ...stored, extractor: broken }, `event of ${what}`);
    const { problem } = await invoke(train, { name: 'train', event, env: stores.env });
    expect(problem).toMatchObject({ code: 'bad-data', status: 422 });
    expect(problem?.detail).toContain(reason);
    expect(await listModelVersions(stores.objects, 'plants')).toEqual(before);
  });

  it.each(['train', 'validation'] as const)(
    'refuses a photo of the %s split whose features are damaged',
    async (split) => {
      const extractor = { id: `damaged ${split}`, dimension: 3, inputSize: 224 };
      const images = await readDataset(stores.db, 'plants', stored.dataset.version);
      const damaged = images.find((image) => image.split === split)?.sha256 ?? '';
      const rows = images.map(({ sha256 }, index) => {
        const sound = Float32Array.of(index, 1, -index);
        const vector = sha256 === damaged ? Float32Array.of(1, Number.NaN, 2) : sound;
        return { sha256, vector, augmentedVector: sound, statistics: {} };
      });
      await storeFeatures(stores.db, 'plants', extractor.id, rows);
      const before = await listModelVersions(stores.objects, 'plants');
      const event = request({ ...stored, extractor }, `damaged ${split}`);
      const { problem } = await invoke(train, { name: 'train', event, env: stores.env });
      expect(problem).toMatchObject({ code: 'bad-data', status: 422 });
      expect(problem?.detail).toContain(`${damaged} is NaN`);
      expect(await listModelVersions(stores.objects, 'plants')).toEqual(before);
    },
  );

  it('refuses an event of another kind', async () => {
    const event = { ...request(stored, 'event-d'), type: 'dev.dandelion.model.trained.v1' };
    const { problem } = await invoke(train, { name: 'train', event, env: stores.env });
    expect(problem).toMatchObject({ code: 'bad-event', status: 400 });
  });
});
