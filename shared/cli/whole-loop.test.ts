import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pipelineFunctions } from '../local/pipeline.ts';
import { quickPipelineEnv } from '../local/testing-pipelines.ts';
import { drawPhoto } from '../vision/drawn.ts';
import { launchStart, runStart } from './testing-start.ts';

let folder: string;
let env: Record<string, string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-loop-'));
  env = await quickPipelineEnv(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('npm start on drawn photos', () => {
  test('trains, deploys, answers, and reports all of it', async () => {
    const { code, output, report } = await runStart(folder, ['--sample'], env);
    expect(output).toContain('serves');
    expect(code).toBe(0);
    expect(report).toMatchObject({
      schemaVersion: 1,
      ok: true,
      dataset: { images: 160, classes: { dandelion: 80, grass: 80 }, rejected: [] },
      reusedSteps: [],
      champion: { name: 'dandelion' },
    });
    const { train = 0, validation = 0, test: tested = 0 } = report?.splits ?? {};
    expect(train + validation + tested).toBe(160);
    expect(report?.metrics?.images).toBe(tested);
    expect(Object.keys(report?.stepsMs ?? {})).toEqual([...pipelineFunctions]);
    expect(report?.prediction?.model).toEqual(report?.champion);
    const probabilities = Object.values(report?.prediction?.probabilities ?? {});
    expect(probabilities.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
  });

  test('does nothing twice the second time', async () => {
    const before = JSON.parse(await readFile(join(folder, 'report.json'), 'utf8'));
    const { code, report } = await runStart(folder, ['--sample'], env);
    expect(code).toBe(0);
    expect(report?.reusedSteps).toEqual([...pipelineFunctions]);
    expect(report?.champion).toEqual(before.champion);
    expect(report?.metrics).toEqual(before.metrics);
  });

  test('serves the page, the model and its pipeline until Ctrl-C, and leaves nothing running', async () => {
    const words = ['--data', join(folder, 'data'), '--port', '0', '--sample'];
    const { child, output, ended } = launchStart(words, env);
    await expect.poll(output, { timeout: 60_000, interval: 100 }).toContain('Ctrl-C');
    const [url = ''] = /http:\/\/localhost:\d+/.exec(output()) ?? [];
    expect(await (await fetch(url)).text()).toContain('<title>');
    const body = new Uint8Array(await drawPhoto('dandelion', 777));
    const headers = { 'content-type': 'image/jpeg' };
    const answer = await fetch(`${url}/function/predict/`, { method: 'POST', body, headers });
    expect(await answer.json()).toMatchObject({ model: { name: 'dandelion' }, label: expect.any(String) });
    const pipeline = await (await fetch(`${url}/pipeline`)).json();
    expect(pipeline).toMatchObject({ champion: { name: 'dandelion' } });
    const metrics = await (await fetch(`${url}/function/predict/metrics`)).text();
    expect(metrics).toContain('faas_invocations_total');
    child.kill('SIGINT');
    expect(await ended).toBe(0);
    await expect(fetch(url)).rejects.toThrow();
  });
});
