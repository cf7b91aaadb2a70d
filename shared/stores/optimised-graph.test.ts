import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backboneGraph } from '../vision/backbone.ts';
import { normal, seededRandom } from '../vision/random.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from '../vision/random-backbone.ts';
import { servingGraph } from '../vision/serving-graph.ts';
import { saveModel } from './models.ts';
import { type ObjectStore, openObjects } from './objects.ts';
import { openServedModel, prepareServedModel } from './served-model.ts';
import { modelDraft } from './testing-models.ts';

const NAME = 'plants';
let directory: string;
let objects: ObjectStore;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-optimised-'));
  objects = openObjects({ OBJECTS_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function graphOf(seed: number): Uint8Array {
  const random = seededRandom(seed);
  return servingGraph(
    backboneGraph(randomStateDict(SMALL_ARCHITECTURE, seed), { architecture: SMALL_ARCHITECTURE }),
    {
      // Small enough that no class is certain: certain models all answer alike.
      weights: Float32Array.from({ length: 48 * 2 }, () => normal(random) / 100),
      bias: Float32Array.of(0, 0.1),
    },
  );
}

async function storeModel(version: string, seed: number): Promise<void> {
  await saveModel(objects, modelDraft(NAME, version), { 'serving.onnx': graphOf(seed) });
}

async function classifyNoise(version: string): Promise<{ optimised: boolean | undefined; scores: number[] }> {
  const model = await openServedModel(objects, NAME, version);
  const random = seededRandom(1);
  const pixels = Uint8Array.from({ length: 3 * 64 * 64 * 3 }, () => 256 * random());
  const scores = [...(await model.classify(pixels, 3))];
  await model.close();
  return { optimised: model.graph?.optimised, scores };
}

async function filesOf(version: string): Promise<{ record: string; graph: string }> {
  const keys: string[] = [];
  for await (const { key } of objects.list(`models/${NAME}/${version}/optimised/`)) keys.push(key);
  const [record = '', graph = ''] = keys.sort();
  expect(keys).toHaveLength(2);
  return { record, graph };
}

async function prepare(version: string): Promise<void> {
  await (await prepareServedModel(objects, NAME, version)).close();
}

describe('a graph optimised for this machine', () => {
  it('gives the answers of the graph it was made of, however often it is made', async () => {
    await storeModel('v0000000001', 1);
    const before = await classifyNoise('v0000000001');
    expect(before.optimised).toBe(false);
    await prepare('v0000000001');
    await prepare('v0000000001');
    const after = await classifyNoise('v0000000001');
    expect(after.optimised).toBe(true);
    expect(after.scores).toHaveLength(6);
    for (const [index, score] of after.scores.entries())
      expect(score).toBeCloseTo(before.scores[index] ?? 9, 4);
  });

  it('is left aside when its bytes are damaged', async () => {
    await storeModel('v0000000002', 2);
    const before = await classifyNoise('v0000000002');
    await prepare('v0000000002');
    const { graph } = await filesOf('v0000000002');
    const bytes = (await objects.get(graph)).bytes;
    bytes.fill(0, bytes.length >> 1);
    await objects.put(graph, bytes);
    expect(await classifyNoise('v0000000002')).toEqual(before);
  });

  it('is left aside when it answers otherwise than the graph, as with weights in the order of another processor', async () => {
    await storeModel('v0000000003', 3);
    await storeModel('v0000000004', 4);
    const before = await classifyNoise('v0000000003');
    await prepare('v0000000003');
    await prepare('v0000000004');
    const [ours, others] = [await filesOf('v0000000003'), await filesOf('v0000000004')];
    const record = JSON.parse((await objects.get(ours.record)).bytes.toString());
    const digest = JSON.parse((await objects.get(others.record)).bytes.toString()).digest;
    await objects.put(ours.graph, (await objects.get(others.graph)).bytes);
    await objects.put(ours.record, Buffer.from(JSON.stringify({ ...record, digest })));
    expect(await classifyNoise('v0000000003')).toEqual(before);
  });

  it('is left aside when the graph is another one by now', async () => {
    await storeModel('v0000000005', 5);
    await prepare('v0000000005');
    await storeModel('v0000000005', 6);
    const { optimised } = await classifyNoise('v0000000005');
    expect(optimised).toBe(false);
  });
});
