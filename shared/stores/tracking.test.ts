import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTracker, type Tracker } from './tracking.ts';

let directory: string;
let tracker: Tracker;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-tracking-'));
  tracker = openTracker({ TRACKING_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const run = { experiment: 'plants', runId: 'plants-v1', runName: 'v1', tags: { 'dandelion.dataset': 'd1' } };
const readJson = async (path: string) => JSON.parse(await readFile(join(directory, path), 'utf8'));

describe('file tracking', () => {
  it('keeps parameters, metric history and artifacts of a run', async () => {
    await tracker.startRun(run);
    await tracker.logParams(run.runId, { seed: 1, backend: 'wasm' });
    await tracker.logMetrics(run.runId, [{ key: 'train/loss', value: 0.5, step: 0 }]);
    await tracker.logMetrics(run.runId, [{ key: 'train/loss', value: 0.25, step: 1 }]);
    await tracker.logArtifact(run.runId, 'plots/roc.txt', Buffer.from('curve'));
    await tracker.endRun(run.runId, 'FINISHED');

    const stored = await readJson('runs/plants-v1/run.json');
    expect(stored).toMatchObject({
      status: 'FINISHED',
      params: { seed: '1', backend: 'wasm' },
      tags: run.tags,
    });
    const lines = (await readFile(join(directory, 'runs/plants-v1/metrics.jsonl'), 'utf8'))
      .trim()
      .split('\n');
    expect(lines.map((line) => JSON.parse(line).value)).toEqual([0.5, 0.25]);
    expect(await readFile(join(directory, 'runs/plants-v1/artifacts/plots/roc.txt'), 'utf8')).toBe('curve');
  });

  it('keeps a value once, however often a step that was cut off logs it', async () => {
    const line = join(directory, 'runs/plants-v1/metrics.jsonl');
    // What a process leaves that was killed while it wrote.
    await writeFile(line, '{"key":"test/acc', { flag: 'a' });
    for (const value of [0.8, 0.9]) {
      await tracker.logMetrics(run.runId, [{ key: 'test/accuracy', value, step: 0 }]);
    }
    const points = (await readFile(line, 'utf8'))
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text));
    expect(points.map(({ key, step, value }) => [key, step, value])).toEqual([
      ['train/loss', 0, 0.5],
      ['train/loss', 1, 0.25],
      ['test/accuracy', 0, 0.9],
    ]);
  });

  it('starts a run that was cut off anew', async () => {
    await tracker.startRun(run);
    expect(await readJson('runs/plants-v1/run.json')).toMatchObject({
      status: 'RUNNING',
      endTime: null,
      params: {},
    });
  });

  it('registers a version once and moves aliases', async () => {
    await tracker.setAlias('plants', 'candidate', { version: 'v1', runId: 'plants-v1' });
    await tracker.setAlias('plants', 'champion', { version: 'v1', runId: 'plants-v1' });
    await tracker.setAlias('plants', 'candidate', { version: 'v2', runId: 'plants-v2' });
    const registry = await readJson('registered-models/plants.json');
    expect(registry.aliases).toEqual({ candidate: 'v2', champion: 'v1' });
    expect(registry.versions.map(({ version }: { version: string }) => version)).toEqual(['v1', 'v2']);
  });
});
