import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { beforeAll, describe, expect, test } from 'vitest';
import type { RunName, TrackedModel, Tracker } from './tracking.ts';

/** A model of two small files. */
export function testModel(name: string, version = 'v1'): TrackedModel {
  return {
    name,
    version,
    signature: {
      inputs: [{ name: 'image', dtype: 'uint8', shape: [-1, 224, 224, 3] }],
      outputs: [{ name: 'probabilities', dtype: 'float32', shape: [-1, 2] }],
    },
    flavors: { onnx: { data: 'serving.onnx' } },
    params: { classes: 2 },
    files: { 'serving.onnx': Buffer.from('graph'), 'docs/card.md': Buffer.from('card') },
  };
}

/** A run of a name that nobody used before. */
export function testRun(title: string): RunName {
  const experiment = `${title}-${randomBytes(5).toString('hex')}`;
  return { experiment, runId: `${experiment}-v1`, runName: 'v1', tags: { 'dandelion.dataset': 'd1' } };
}

/** What every tracking store owes the pipeline. */
export function describeTrackingContract(title: string, open: () => Tracker): void {
  describe(title, () => {
    let tracker: Tracker;
    beforeAll(() => {
      tracker = open();
    });

    test('keeps parameters, the history of metrics, the dataset and files of a run', async () => {
      const name = testRun('contract');
      const run = await tracker.startRun(name);
      await run.logParams({ seed: 1, backend: 'wasm' });
      await run.logParams({ seed: 1 });
      await run.logDataset({
        name: name.experiment,
        digest: 'd1',
        images: 3,
        classes: { a: 3 },
        splits: { test: 3 },
      });
      await run.logMetrics([{ key: 'train/loss', value: 0.5, step: 0 }]);
      await run.logMetrics([{ key: 'train/loss', value: 0.25, step: 1 }]);
      await run.logArtifact('plots/roc curve.svg', Buffer.from('<svg/>'));
      await run.end('FINISHED');

      const [found] = await tracker.searchRuns(name.experiment, { tags: name.tags });
      expect(found).toMatchObject({
        runId: name.runId,
        status: 'FINISHED',
        params: { seed: '1', backend: 'wasm' },
        tags: name.tags,
        metrics: { 'train/loss': 0.25 },
      });
      expect(await run.metricHistory('train/loss')).toEqual([
        { key: 'train/loss', value: 0.5, step: 0 },
        { key: 'train/loss', value: 0.25, step: 1 },
      ]);
      expect(Buffer.from(await run.readArtifact('plots/roc curve.svg')).toString()).toBe('<svg/>');
    });

    test('keeps the first value of a key and step, however often a step logs it', async () => {
      const run = await tracker.startRun(testRun('repeat'));
      const history = [0, 1, 2].map((step) => ({ key: 'train/loss', value: 1 / (step + 1), step }));
      await run.logMetrics(history.slice(0, 2));
      await run.logMetrics(history);
      await run.logMetrics([{ key: 'test/accuracy', value: 0.8, step: 0 }]);
      await run.logMetrics([{ key: 'test/accuracy', value: 0.9, step: 0 }]);
      expect(await run.metricHistory('train/loss')).toEqual(history);
      expect(await run.metricHistory('test/accuracy')).toEqual([
        { key: 'test/accuracy', value: 0.8, step: 0 },
      ]);
    });

    test('takes more values than fit into one call', async () => {
      const run = await tracker.startRun(testRun('many'));
      const metrics = Array.from({ length: 2100 }, (_, step) => ({
        key: 'train/loss',
        value: step / 7,
        step,
      }));
      const params = Object.fromEntries(Array.from({ length: 120 }, (_, i) => [`p${i}`, i]));
      await run.logMetrics(metrics);
      await run.logParams(params);
      expect(await run.metricHistory('train/loss')).toEqual(metrics);
    });

    test('streams a file', async () => {
      const run = await tracker.startRun(testRun('stream'));
      const part = randomBytes(64 * 1024);
      const open = () => Readable.from(Array.from({ length: 64 }, () => part));
      await run.logArtifact('large.bin', { sizeBytes: 64 * part.length, open });
      const bytes = Buffer.from(await run.readArtifact('large.bin'));
      expect(bytes.length).toBe(64 * part.length);
      expect(bytes.subarray(-part.length).equals(part)).toBe(true);
    });

    test('opens a run that was cut off anew, and leaves one', async () => {
      const name = testRun('anew');
      const cut = await tracker.startRun(name);
      await cut.logParams({ backend: 'wasm' });
      await cut.logMetrics([{ key: 'train/loss', value: 0.5, step: 0 }]);
      await cut.logModel(testModel(name.experiment));
      const run = await tracker.startRun(name);
      await run.logParams({ backend: 'node' });
      await run.end('FINISHED');
      const runs = await tracker.searchRuns(name.experiment, {});
      expect(runs).toMatchObject([
        { runId: name.runId, status: 'FINISHED', params: { backend: 'node' }, metrics: {} },
      ]);
    });

    test('goes on with the run of an earlier step, and opens one where there is none', async () => {
      const name = testRun('resume');
      const run = await tracker.startRun(name);
      await run.logMetrics([{ key: 'validation/accuracy', value: 0.9, step: 0 }]);
      await run.end('FINISHED');
      const resumed = await tracker.resumeRun(name);
      await resumed.logMetrics([{ key: 'test/accuracy', value: 0.8, step: 0 }]);
      const other = { ...name, runId: `${name.experiment}-v2` };
      await (await tracker.resumeRun(other)).logMetrics([{ key: 'test/accuracy', value: 0.7, step: 0 }]);
      const runs = await tracker.searchRuns(name.experiment, { by: 'test/accuracy' });
      expect(runs.map(({ runId, metrics }) => [runId, metrics])).toEqual([
        [name.runId, { 'validation/accuracy': 0.9, 'test/accuracy': 0.8 }],
        [other.runId, { 'test/accuracy': 0.7 }],
      ]);
    });

    test('refuses a parameter that changes', async () => {
      const run = await tracker.startRun(testRun('param'));
      await run.logParams({ seed: 1 });
      await expect(run.logParams({ seed: 2 })).rejects.toMatchObject({ code: 'store-refused', status: 500 });
    });

    test('registers a version once and moves aliases', async () => {
      const name = testRun('registry');
      const { experiment: model } = name;
      for (const version of ['v1', 'v2']) {
        const run = await tracker.startRun({ ...name, runId: `${model}-${version}`, runName: version });
        await run.logModel(testModel(model, version));
        await run.end('FINISHED');
      }
      expect(await tracker.readAlias(model, 'champion')).toBeUndefined();
      await tracker.setAlias(model, 'candidate', { version: 'v1', runId: `${model}-v1` });
      await tracker.setAlias(model, 'champion', { version: 'v1', runId: `${model}-v1` });
      await tracker.setAlias(model, 'champion', { version: 'v1', runId: `${model}-v1` });
      await tracker.setAlias(model, 'candidate', { version: 'v2', runId: `${model}-v2` });
      expect(await tracker.readAlias(model, 'champion')).toBe('v1');
      expect(await tracker.readAlias(model, 'candidate')).toBe('v2');
    });
  });
}
