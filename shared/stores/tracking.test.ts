import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { describeTrackingContract, testModel, testRun } from './testing-tracking.ts';
import { openTracker, type Tracker } from './tracking.ts';

let directory: string;
let tracker: Tracker;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-tracking-'));
  tracker = openTracker({ TRACKING_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

describeTrackingContract('a folder as tracking store', () => tracker);

describe('a folder as tracking store', () => {
  test('is read over what a process left that was killed while it wrote', async () => {
    const name = testRun('killed');
    const run = await tracker.startRun(name);
    await run.logMetrics([{ key: 'train/loss', value: 0.5, step: 0 }]);
    const lines = join(directory, 'runs', name.runId, 'metrics.jsonl');
    await writeFile(lines, '{"key":"test/acc', { flag: 'a' });
    await run.logMetrics([{ key: 'test/accuracy', value: 0.8, step: 0 }]);
    const points = (await readFile(lines, 'utf8')).trim().split('\n');
    expect(points.map((line) => JSON.parse(line).key)).toEqual(['train/loss', 'test/accuracy']);
  });

  test('keeps every alias and version when several processes set them at once', async () => {
    const model = testRun('aliases').experiment;
    const versions = Array.from({ length: 12 }, (_, index) => `v${index}`);
    // Each with a tracker of its own, as train and deploy have.
    const set = (alias: 'candidate' | 'champion', version: string) =>
      openTracker({ TRACKING_DIR: directory }).setAlias(model, alias, { version, runId: `run-${version}` });
    await Promise.all([
      set('champion', 'v0'),
      ...versions.slice(1).map((version) => set('candidate', version)),
    ]);
    expect(await tracker.readAlias(model, 'champion')).toBe('v0');
    const registry = await readFile(join(directory, 'registered-models', `${model}.json`), 'utf8');
    expect(JSON.parse(registry).versions).toHaveLength(versions.length);
  });

  test('keeps what is written about a run at once', async () => {
    const name = testRun('at-once');
    const run = await tracker.startRun(name);
    const keys = Array.from({ length: 8 }, (_, index) => `key-${index}`);
    await Promise.all([
      ...keys.map((key) => run.logParams({ [key]: 1 })),
      ...keys.map((key) => run.setTags({ [key]: 'set' })),
      ...keys.map((key) => run.logMetrics([{ key, value: 1, step: 0 }])),
    ]);
    const [found] = await tracker.searchRuns(name.experiment, {});
    expect(Object.keys(found?.params ?? {}).sort()).toEqual(keys);
    expect(Object.keys(found?.metrics ?? {}).sort()).toEqual(keys);
    expect(found?.tags).toMatchObject(Object.fromEntries(keys.map((key) => [key, 'set'])));
  });

  test.each(['../../outside', '..', 'a/b', '', '/tmp/outside', 'a\0b'])('has no run %j', async (runId) => {
    const name = { ...testRun('named'), runId };
    const refused = { code: 'bad-data', message: expect.stringContaining('no id of a run') };
    await expect(tracker.resumeRun(name)).rejects.toMatchObject(refused);
    await expect(tracker.startRun(name)).rejects.toMatchObject(refused);
  });

  test('keeps a model as MLflow does: its files, and an MLmodel file with the signature', async () => {
    const name = testRun('model');
    const run = await tracker.startRun(name);
    await run.logModel(testModel(name.experiment));
    const folder = join(directory, 'runs', name.runId, 'model');
    expect((await readdir(folder)).sort()).toEqual(['MLmodel', 'docs', 'serving.onnx']);
    const { flavors, signature } = parse(await readFile(join(folder, 'MLmodel'), 'utf8'));
    expect(flavors).toEqual({ onnx: { data: 'serving.onnx' } });
    expect(JSON.parse(signature.inputs)).toEqual([
      { name: 'image', type: 'tensor', 'tensor-spec': { dtype: 'uint8', shape: [-1, 224, 224, 3] } },
    ]);
  });
});

test('without MLflow and without a folder there is nowhere to track runs', () => {
  expect(() => openTracker({})).toThrow(/set MLFLOW_TRACKING_URI to an MLflow server, or TRACKING_DIR/);
});
