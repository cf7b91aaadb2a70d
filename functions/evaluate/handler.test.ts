import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvent, type EventData } from '../../shared/events.ts';
import { invoke } from '../../shared/function/testing.ts';
import { readDataset } from '../../shared/stores/datasets.ts';
import { type ModelRecord, promoteChampion, readEvaluation } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { openTracker } from '../../shared/stores/tracking.ts';
import * as evaluate from './handler.ts';
import type { TestReport } from './report.ts';

const good = 'v0000000001';
const spoilt = 'v0000000002';
const twin = 'v0000000003';

let stores: TestStores;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 30, grass: 30 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  for (const version of [good, spoilt, twin]) {
    const spoil = version === spoilt;
    const model = await storeDrawnModel(stores, { name: 'plants', version, dataset, spoil });
    await openTracker({ TRACKING_DIR: stores.env.TRACKING_DIR ?? '' }).startRun({
      experiment: 'plants',
      runId: model.training.runId,
      runName: version,
      tags: {},
    });
    models.set(version, model);
  }
});
afterAll(() => stores.drop());

const models = new Map<string, ModelRecord>();

async function judge(version: string) {
  const model = models.get(version);
  if (model === undefined) throw new Error(`no model ${version}`);
  const data = {
    model: { name: 'plants', version },
    dataset: model.dataset,
    runId: model.training.runId,
    trainingMs: 1,
    engine: 'tfjs-wasm',
    metrics: model.metrics,
  };
  const event = createEvent({ type: 'dev.dandelion.model.trained.v1', source: '/test', id: version, data });
  const answer = await invoke(evaluate, { name: 'evaluate', event, env: stores.env });
  const verdict = answer.event?.data as EventData<'dev.dandelion.model.approved.v1'>;
  return {
    ...answer,
    verdict,
    failed: verdict?.checks.flatMap(({ check, passed }) => (passed ? [] : [check])),
  };
}

describe('evaluate', () => {
  it('approves a first model that clears the floor, and writes its evaluation', async () => {
    const { event, verdict } = await judge(good);
    expect(event?.type).toBe('dev.dandelion.model.approved.v1');
    expect(verdict.champion).toBeNull();
    const written = await readEvaluation(stores.objects, 'plants', good);
    expect(written).toMatchObject({ approved: true, metrics: verdict.metrics });
    const tested = written?.confusion.flat().reduce((sum, count) => sum + count, 0);
    expect(tested).toBe(verdict.metrics.images);
    const { bytes } = await stores.objects.get(`models/plants/${good}/report.json`);
    const report = JSON.parse(bytes.toString()) as TestReport;
    expect(report).toMatchObject({ approved: true, metrics: verdict.metrics, paired: null });
    // The models of fixtures have no threshold.
    expect(report.unknown).toBeNull();
    const bySize = report.slices.filter(({ by }) => by === 'shorter side');
    expect(bySize.reduce((sum, { photos }) => sum + photos, 0)).toBe(verdict.metrics.images);
    const page = (await stores.objects.get(`models/plants/${good}/report.html`)).bytes.toString();
    for (const part of ['Confusion matrix', 'ROC curves', 'Calibration', 'no champion'])
      expect(page).toContain(part);
  });

  it('says on the run, for people, what the gate decided and how many photos were right', async () => {
    const { verdict } = await judge(good);
    const [run] = await openTracker({ TRACKING_DIR: stores.env.TRACKING_DIR ?? '' }).searchRuns('plants', {
      tags: { 'dandelion.approved': 'true' },
    });
    const share = (verdict.metrics.accuracy * 100).toFixed(1);
    const said = `Approved by the gate: right on ${share} % of ${verdict.metrics.images} test photos`;
    expect(run?.tags['mlflow.note.content']).toContain(said);
  });

  it('refuses a first model that learnt the wrong names', async () => {
    const { event, failed } = await judge(spoilt);
    expect(event?.type).toBe('dev.dandelion.model.rejected.v1');
    expect(failed).toContain('floor');
  });

  it('holds a candidate against the champion on the same photos', async () => {
    await promoteChampion(stores.objects, 'plants', good);
    const equal = await judge(twin);
    expect(equal.verdict.champion?.version).toBe(good);
    expect(equal.verdict.checks.find(({ check }) => check === 'non-inferiority')).toMatchObject({
      passed: true,
      value: 0,
    });
    const { bytes } = await stores.objects.get(`models/plants/${twin}/report.json`);
    const { paired } = JSON.parse(bytes.toString()) as TestReport;
    expect(paired).toMatchObject({
      champion: good,
      won: 0,
      lost: 0,
      accuracy: { mean: 0 },
    });
    // Of so few photos it says little that none tells them apart.
    expect(paired?.accuracy.interval[1]).toBeGreaterThan(0.1);
    const worse = await judge(spoilt);
    expect(worse.failed).toEqual(expect.arrayContaining(['floor', 'non-inferiority']));
  });

  it('refuses to measure against damaged features, by the photo, and decides nothing', async () => {
    const test = { model: 'plants', version: models.get(good)?.dataset.version ?? '' };
    const [photo] = await readDataset(stores.db, test.model, test.version, 'test');
    const [row] = await stores.db<{ vector: Buffer }[]>`
      select vector from features where sha256 = ${photo?.sha256 ?? ''}`;
    const keep = (vector: Buffer) =>
      stores.db`update features set vector = ${vector} where sha256 = ${photo?.sha256 ?? ''}`;
    const nan = Buffer.from(row?.vector ?? []).fill(0x7e, 1, 2);
    await keep(nan);
    try {
      const { problem } = await judge(good);
      expect(problem).toMatchObject({ code: 'bad-data', status: 422 });
      expect(problem?.detail).toContain(`${photo?.sha256} is NaN`);
    } finally {
      await keep(Buffer.from(row?.vector ?? []));
    }
  });

  it('says what to do about a champion that is damaged, which is in the way of every candidate', async () => {
    const head = `models/plants/${good}/head.bin`;
    const { bytes } = await stores.objects.get(head);
    await stores.objects.put(head, bytes.subarray(0, 100));
    try {
      const { problem } = await judge(twin);
      expect(problem).toMatchObject({ code: 'model-broken' });
      expect(problem?.detail).toMatch(new RegExp(`champion.*${good}.*digest differs.*npm run rollback`));
    } finally {
      await stores.objects.put(head, bytes);
    }
  });

  it('names the dataset that is not there', async () => {
    const model = models.get(good);
    if (model === undefined) throw new Error('the model is stored in beforeAll');
    models.set('v00000000ff', { ...model, dataset: { ...model.dataset, version: 'dffffffffffff' } });
    const { problem } = await judge('v00000000ff');
    expect(problem).toMatchObject({ code: 'bad-data' });
    expect(problem?.detail).toContain('dffffffffffff');
  });
});
