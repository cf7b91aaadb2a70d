import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pipelineFunctions } from '../local/pipeline.ts';
import { quickPipelineEnv } from '../local/testing-pipelines.ts';
import { readChampion } from '../stores/models.ts';
import { openObjects } from '../stores/objects.ts';
import { drawPhoto } from '../vision/drawn.ts';
import { randomBackboneGraph } from '../vision/random-backbone.ts';
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

  test('trains anew for features of another kind, and again for those of before', async () => {
    const features = (given: Record<string, string>) => runStart(folder, ['--sample'], { ...env, ...given });
    const before = await features({});
    const gate = { GATE_MARGIN: '1', GATE_MIN_ACCURACY: '0', GATE_MAX_OVERCONFIDENCE: '1' };
    const ratios = { GATE_MAX_LATENCY_RATIO: '1000', GATE_MAX_SIZE_RATIO: '1000' };
    const graph = join(folder, 'other.onnx');
    await writeFile(graph, randomBackboneGraph(3));
    const other = await features({ ...gate, ...ratios, BACKBONE_URI: graph });
    expect([other.code, other.output]).toEqual([0, expect.stringContaining('on features of backbone-')]);
    expect(other.report?.champion).not.toEqual(before.report?.champion);
    expect(other.report?.reusedSteps).toEqual([]);
    const back = await features({ ...gate, ...ratios });
    expect(back.report?.extractor).toBe(before.report?.extractor);
    expect(back.report?.reusedSteps).toEqual([]);
  });

  test('stays up when the model that serves is damaged, says so, and answers once it is whole', async () => {
    const objects = openObjects({ OBJECTS_DIR: join(folder, 'data/objects') });
    const champion = (await readChampion(objects, 'dandelion'))?.champion;
    const graph = `models/dandelion/${champion?.version}/serving.onnx`;
    const { bytes } = await objects.get(graph);
    await objects.put(graph, bytes.subarray(0, 1000));
    await rm(join(folder, 'data/objects/models/dandelion', champion?.version ?? '', 'optimised'), {
      recursive: true,
    });
    const { code, output: said } = await runStart(folder, [], env);
    expect([code, said]).toEqual([
      1,
      expect.stringMatching(`${champion?.version}.*digest differs.*npm run rollback`),
    ]);
    const { child, output, ended } = launchStart(['--data', join(folder, 'data'), '--port', '0'], env);
    await expect.poll(output, { timeout: 60_000, interval: 100 }).toContain('Ctrl-C');
    expect(output()).toMatch(/digest differs.*npm run rollback/);
    await objects.put(graph, bytes);
    const [url = ''] = /http:\/\/localhost:\d+/.exec(output()) ?? [];
    const body = new Uint8Array(await drawPhoto('dandelion', 778));
    const headers = { 'content-type': 'image/jpeg' };
    const answer = await fetch(`${url}/function/predict/`, { method: 'POST', body, headers });
    expect(answer.status).toBe(200);
    child.kill('SIGINT');
    expect(await ended).toBe(0);
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
