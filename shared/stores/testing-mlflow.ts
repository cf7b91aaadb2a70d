import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { TrackingSettings } from '../config.ts';
import { nothing } from './mlflow-answers.ts';
import { openMlflowClient } from './mlflow-client.ts';
import { openLossyWay } from './testing-lossy.ts';
import { testModel, testRun } from './testing-tracking.ts';
import { openTracker } from './tracking.ts';

/** What MLflow's own interface shows of what we log, and how its silences are broken. */
export function describeMlflow(settings: TrackingSettings & { MLFLOW_TRACKING_URI: string }): void {
  const client = () => openMlflowClient(settings);
  const tracker = () => openTracker(settings);
  const runsOf = async (experiment: string) => {
    const found = await client().findExperiment(experiment);
    return client().searchRuns({ experiment: found?.experiment_id ?? '', filter: '', limit: 10 });
  };

  describe('what MLflow shows', () => {
    test('is a run with its dataset and its model, and a version of the registered model with aliases', async () => {
      const name = testRun('shown');
      const { experiment: model } = name;
      const run = await tracker().startRun(name);
      await run.logDataset({ name: model, digest: 'd1', images: 3, classes: { a: 3 }, splits: { test: 3 } });
      await run.logModel(testModel(model));
      await run.logMetrics([{ key: 'test/accuracy', value: 0.5, step: 0 }]);
      await run.logModel(testModel(model));
      await run.end('FINISHED');
      await tracker().setAlias(model, 'candidate', { version: 'v1', runId: name.runId });
      await tracker().setAlias(model, 'champion', { version: 'v1', runId: name.runId });

      const [shown, ...others] = await runsOf(model);
      expect(others).toEqual([]);
      expect(shown?.inputs.dataset_inputs).toMatchObject([{ dataset: { name: model, digest: 'd1' } }]);
      expect(shown?.outputs.model_outputs).toHaveLength(1);
      const models = await client().findModels(shown?.info.experiment_id ?? '', shown?.info.run_id ?? '');
      expect(models).toMatchObject([{ name: model, status: 'LOGGED_MODEL_READY' }]);
      const versions = await client().findVersions(model, 'dandelion.version', 'v1');
      expect(versions).toMatchObject([{ version: '1', run_id: shown?.info.run_id }]);
      const aliases = (await client().getVersion(model, '1')).aliases;
      expect(aliases.sort()).toEqual(['candidate', 'champion']);
    });

    test('is one run, one model and one version when a step is worked again after it was finished', async () => {
      const name = testRun('again');
      const { experiment: model } = name;
      for (const _attempt of [1, 2]) {
        const run = await tracker().startRun(name);
        await run.logModel(testModel(model));
        await run.end('FINISHED');
        await tracker().setAlias(model, 'candidate', { version: 'v1', runId: name.runId });
        if (_attempt === 1) await tracker().setAlias(model, 'champion', { version: 'v1', runId: name.runId });
      }
      const [run, ...others] = await runsOf(model);
      expect(others).toEqual([]);
      const versions = await client().findVersions(model, 'dandelion.version', 'v1');
      expect(versions.map(({ run_id: runId }) => runId)).toEqual([run?.info.run_id]);
      expect(await tracker().readAlias(model, 'champion')).toBe('v1');
    });

    test('refuses what an attempt still sends whose run was opened anew', async () => {
      const name = testRun('fenced');
      const cut = await tracker().startRun(name);
      await tracker().startRun(name);
      const late = cut.logMetrics([{ key: 'train/loss', value: 1, step: 0 }]);
      await expect(late).rejects.toMatchObject({ code: 'store-refused', message: /active/ });
    });
  });

  test('an answer that gets lost doubles nothing, whatever was asked for', async () => {
    const name = testRun('lost');
    const { experiment: model, runId } = name;
    const way = await openLossyWay(client().http.url);
    const lossy = openTracker({ ...settings, MLFLOW_TRACKING_URI: way.url });
    const cut = await lossy.startRun(name);
    await cut.logModel(testModel(model));
    const run = await lossy.startRun(name);
    await run.logParams({ seed: 1 });
    await run.logMetrics([0, 1].map((step) => ({ key: 'train/loss', value: 1 / (step + 1), step })));
    await run.logDataset({ name: model, digest: 'd1', images: 3, classes: { a: 3 }, splits: { test: 3 } });
    await run.logModel(testModel(model));
    await run.end('FINISHED');
    await lossy.setAlias(model, 'candidate', { version: 'v1', runId });
    await way.close();

    expect(way.lost).toEqual(
      expect.arrayContaining([
        ...['POST experiments/create', 'POST runs/create', 'POST runs/log-batch', 'POST runs/log-inputs'],
        ...['POST logged-models', 'POST runs/outputs', 'POST runs/delete', 'DELETE logged-models'],
        ...['POST registered-models/create', 'POST model-versions/create', 'POST registered-models/alias'],
      ]),
    );
    const [shown, ...others] = await runsOf(model);
    expect([shown?.info.status, others]).toEqual(['FINISHED', []]);
    expect(shown?.outputs.model_outputs).toHaveLength(1);
    const { experiment_id: experiment, run_id: id } = shown?.info ?? { experiment_id: '', run_id: '' };
    expect(await client().metricHistory(id, 'train/loss')).toHaveLength(2);
    expect(await client().findModels(experiment, id)).toHaveLength(1);
    expect(await client().findVersions(model, 'dandelion.version', 'v1')).toHaveLength(1);
    expect(await tracker().readAlias(model, 'candidate')).toBe('v1');
  });

  describe('the silences of MLflow', () => {
    test('a status that it would ignore, and values that it would cut, are errors', async () => {
      const { info } = await client().createRun({
        experiment_id: '0',
        run_name: 'silences',
        start_time: Date.now(),
        tags: {},
      });
      const status = client().updateRun(info.run_id, 'DONE' as 'FINISHED');
      await expect(status).rejects.toMatchObject({ message: /"DONE" is no status of a run/ });
      const param = client().logBatch(info.run_id, { params: { text: 'x'.repeat(6001) } });
      await expect(param).rejects.toMatchObject({ code: 'store-refused', message: /6001 characters/ });
      const tag = client().logBatch(info.run_id, { tags: { text: 'x'.repeat(8001) } });
      await expect(tag).rejects.toMatchObject({ code: 'store-refused', message: /8001 characters/ });
      await client().deleteRun(info.run_id);
    });

    test('a value that is no number comes back as one that is none', async () => {
      const run = await tracker().startRun(testRun('nan'));
      await run.logMetrics([{ key: 'loss', value: Number.NaN, step: 0 }]);
      expect(await run.metricHistory('loss')).toEqual([{ key: 'loss', value: Number.NaN, step: 0 }]);
    });

    test('an experiment that was deleted says how it comes back', async () => {
      const name = testRun('deleted');
      await tracker().startRun(name);
      const id = (await client().findExperiment(name.experiment))?.experiment_id;
      const deletion = { method: 'POST', path: 'experiments/delete', body: { experiment_id: id } } as const;
      await client().http.call(deletion, nothing);
      const again = tracker().startRun(name);
      await expect(again).rejects.toMatchObject({ code: 'store-refused', message: /experiments restore/ });
    });

    test('an address that is not the root of an MLflow server is wrong configuration', async () => {
      const elsewhere = { ...settings, MLFLOW_TRACKING_URI: `${settings.MLFLOW_TRACKING_URI}/static-files` };
      const asked = openMlflowClient(elsewhere).check();
      await expect(asked).rejects.toMatchObject({ code: 'bad-config', message: /Check MLFLOW_TRACKING_URI/ });
    });

    test('a model that nobody registered has no alias', async () => {
      expect(await tracker().readAlias(`no-${randomBytes(4).toString('hex')}`, 'champion')).toBeUndefined();
    });
  });
}
