import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { DandelionError } from '../errors.ts';
import { type RunningMlflow, startMlflow } from '../local/mlflow.ts';
import { drawFolder, quickPipelineEnv } from '../local/testing-pipelines.ts';
import { openMlflowClient } from '../stores/mlflow-client.ts';
import { describeMlflow } from '../stores/testing-mlflow.ts';
import { describeTrackingContract, testModel, testRun } from '../stores/testing-tracking.ts';
import { openTracker } from '../stores/tracking.ts';
import { endStarted, launchStart, runStart } from './testing-start.ts';

// One server for everything here: it takes ten seconds to start, and the packages a minute to install once.
const base = await mkdtemp(join(tmpdir(), 'dandelion-mlflow-'));
const dataDir = join(base, 'data/mlflow');
let server = await startMlflow({ dataDir }).catch((error: unknown): RunningMlflow => {
  const isMissing = error instanceof DandelionError && error.code === 'bad-config';
  if (!isMissing) throw error;
  console.warn(`SKIPPED: everything that needs MLflow: ${error.message}`);
  return { url: '', stop: async () => {}, kill: async () => {} };
});
const { url } = server;
const port = Number(new URL(url || 'http://127.0.0.1:0').port);
const settings = { MLFLOW_TRACKING_URI: url };
const restart = async () => {
  server = await startMlflow({ dataDir, port });
};

afterEach(endStarted);
afterAll(async () => {
  await server.stop();
  await rm(base, { recursive: true, force: true });
});

describe.skipIf(url === '')('with a real MLflow', () => {
  describeTrackingContract('MLflow as tracking store', () => openTracker(settings));
  describeMlflow(settings);

  test('that is killed and started again in the middle of a run, nothing is lost or doubled', async () => {
    const name = testRun('killed');
    const { experiment: model, runId } = name;
    const tracker = openTracker(settings);
    const run = await tracker.startRun(name);
    const history = Array.from({ length: 3000 }, (_, step) => ({
      key: 'train/loss',
      value: 1 / (step + 1),
      step,
    }));
    const work = async () => {
      await run.logMetrics(history);
      await run.logModel(testModel(model));
      await run.end('FINISHED');
      await tracker.setAlias(model, 'candidate', { version: 'v1', runId });
    };
    const working = work();
    await server.kill();
    await restart();
    await working;

    const client = openMlflowClient(settings);
    const { experiment_id: experiment = '' } = (await client.findExperiment(model)) ?? {};
    const [found, ...others] = await client.searchRuns({ experiment, filter: '', limit: 10 });
    expect([found?.info.status, others]).toEqual(['FINISHED', []]);
    expect(await run.metricHistory('train/loss')).toEqual(history);
    expect(await client.findModels(experiment, found?.info.run_id ?? '')).toHaveLength(1);
    expect(await client.findVersions(model, 'dandelion.version', 'v1')).toHaveLength(1);
    expect(await tracker.readAlias(model, 'candidate')).toBe('v1');
  });

  describe('npm start', () => {
    let env: Record<string, string>;
    beforeAll(async () => {
      env = { ...(await quickPipelineEnv(base)), MLFLOW_TRACKING_URI: url };
      await drawFolder(join(base, 'photos'), { dandelion: 16, grass: 16 }, 1);
    });
    const words = (...more: string[]) => ['--images', join(base, 'photos'), ...more];

    test('tracks a pipeline: one run with history, test metrics and pictures; a version that is the champion', async () => {
      const { code, output, report } = await runStart(
        join(base, 'pipeline'),
        words('--model', 'tracked'),
        env,
      );
      expect([code, output]).toEqual([0, expect.stringContaining(`shown by MLflow at ${url}`)]);
      const version = report?.champion?.version ?? '';
      const tracker = openTracker(settings);
      const [run, ...others] = await tracker.searchRuns('tracked', {});
      expect(others).toEqual([]);
      expect(run).toMatchObject({
        runId: `tracked-${version}`,
        status: 'FINISHED',
        metrics: { 'test/accuracy': report?.metrics?.accuracy, 'test/roc_auc': report?.metrics?.rocAuc },
        tags: { 'dandelion.dataset': report?.dataset?.version, 'dandelion.approved': 'true' },
      });
      const opened = await tracker.resumeRun({
        experiment: 'tracked',
        runId: `tracked-${version}`,
        runName: '',
        tags: {},
      });
      expect((await opened.metricHistory('train/loss')).length).toBeGreaterThan(2);
      for (const picture of ['confusion', 'roc', 'misclassified']) {
        expect(Buffer.from(await opened.readArtifact(`test/${picture}.svg`)).toString()).toMatch(/^<svg /);
      }
      expect(await tracker.readAlias('tracked', 'candidate')).toBe(version);
      expect(await tracker.readAlias('tracked', 'champion')).toBe(version);
    });

    test('goes on with a pipeline after MLflow was away, and doubles nothing', async () => {
      const folder = join(base, 'outage');
      const started = launchStart(
        words('--model', 'outage', '--once', '--port', '0', '--data', join(folder, 'data')),
        env,
      );
      await expect.poll(started.output, { timeout: 60_000 }).toMatch(/train +running/);
      await server.kill();
      await restart();
      expect([await started.ended, started.output()]).toEqual([0, expect.stringContaining('serves')]);
      const client = openMlflowClient(settings);
      const { experiment_id: experiment = '' } = (await client.findExperiment('outage')) ?? {};
      const runs = await client.searchRuns({ experiment, filter: '', limit: 10 });
      expect(runs.map(({ info }) => info.status)).toEqual(['FINISHED']);
      const id = runs[0]?.info.run_id ?? '';
      const history = await client.metricHistory(id, 'train/loss');
      expect(new Set(history.map(({ step }) => step)).size).toBe(history.length);
      expect(await client.metricHistory(id, 'test/accuracy')).toHaveLength(1);
      expect(await client.findModels(experiment, id)).toHaveLength(1);
    });
  });

  test('npm start -- --mlflow brings a server up on what is there, and takes it down again', async () => {
    await server.stop();
    const env = await quickPipelineEnv(base);
    const words = ['--mlflow', '--images', join(base, 'photos'), '--model', 'own', '--port', '0'];
    const started = launchStart([...words, '--data', join(base, 'data')], {
      ...env,
      MLFLOW_TRACKING_URI: '',
    });
    await expect.poll(started.output, { timeout: 90_000 }).toMatch(/drop a photo on the page/);
    const own = /shown by MLflow at (http:\S+)\/#/.exec(started.output())?.[1] ?? '';
    const tracker = openTracker({ MLFLOW_TRACKING_URI: own });
    expect(await tracker.searchRuns('own', {})).toHaveLength(1);
    expect(await tracker.searchRuns('tracked', {})).toHaveLength(1);
    expect(await (await fetch(own)).text()).toContain('<title>MLflow</title>');
    started.child.kill('SIGTERM');
    expect(await started.ended).toBe(0);
    await expect(fetch(`${own}/health`)).rejects.toThrow();
  });
});

describe('an MLflow that is named and cannot be used ends with 2', () => {
  test.each([
    [
      'does not answer',
      'http://user:hunter2@127.0.0.1:59',
      /MLflow at http:\/\/127\.0\.0\.1:59 does not answer \(ECONNREFUSED\)/,
    ],
    ['is no address', 'mlflow.example', /MLFLOW_TRACKING_URI: use http:\/\/host:port/],
  ])('one that %s', async (_title, address, sentence) => {
    await drawFolder(join(base, 'few'), { dandelion: 1, grass: 1 }, 1);
    const words = ['--images', join(base, 'few')];
    const { code, output } = await runStart(join(base, 'named'), words, { MLFLOW_TRACKING_URI: address });
    expect([code, output]).toEqual([2, expect.stringMatching(sentence)]);
    expect(output).toContain('MLFLOW_TRACKING_URI');
    expect(output).not.toContain('hunter2');
  });
});
