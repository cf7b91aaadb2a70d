import { describe, expect, it } from 'vitest';
import { backboneGraph } from './backbone.ts';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from './classical.ts';
import { decodePhoto } from './decode.ts';
import { type DrawnClass, drawPhoto } from './drawn.ts';
import { openClassicalEngine, openEngine } from './engine.ts';
import { familiarityOf } from './familiarity.ts';
import { applyHead } from './head.ts';
import { decodeOnnx, encodeOnnx } from './onnx.ts';
import { normal, seededRandom } from './random.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from './random-backbone.ts';
import { servingGraph } from './serving-graph.ts';
import { loadTensorFlow } from './tensorflow.ts';

async function drawnPixels(size: number, count: number): Promise<Uint8Array> {
  const classes: DrawnClass[] = ['dandelion', 'grass', 'daisy'];
  const photos = Array.from({ length: count }, async (_, i) => {
    const bytes = await drawPhoto(classes[i % 3] ?? 'grass', i);
    return (await decodePhoto(bytes, { size })).pixels;
  });
  return Buffer.concat(await Promise.all(photos));
}

function smallGraph(seed: number): Uint8Array {
  const random = seededRandom(seed);
  return servingGraph(
    backboneGraph(randomStateDict(SMALL_ARCHITECTURE, seed), { architecture: SMALL_ARCHITECTURE }),
    {
      weights: Float32Array.from({ length: 48 * 3 }, () => normal(random) / 4),
      bias: Float32Array.of(0, 0.1, -0.1),
      directions: Float32Array.from({ length: 3 * 48 }, () => Math.abs(normal(random)) / 7),
    },
  );
}

describe('openEngine', () => {
  it.each([1, 2, 3])('computes the same with onnxruntime and with WebAssembly (network %i)', async (seed) => {
    const graph = smallGraph(seed);
    const native = await openEngine(graph);
    const wasm = await openEngine(graph, { prefer: 'wasm' });
    expect(native.name).toBe('onnxruntime-node');
    expect(wasm.name).toMatch(/^tfjs-/);
    const pixels = await drawnPixels(64, 5);
    const heat = true;
    const [a, b] = await Promise.all([native.run(pixels, 5, { heat }), wasm.run(pixels, 5, { heat })]);
    await Promise.all([native.close(), wasm.close()]);
    expect(a.features.length).toBe(5 * 48);
    expect(new Set(a.features).size).toBeGreaterThan(100);
    for (const [i, value] of a.features.entries())
      expect(Math.abs(value - (b.features[i] ?? 9))).toBeLessThan(1e-3);
    for (const [i, value] of (a.probabilities ?? []).entries()) {
      expect(Math.abs(value - (b.probabilities?.[i] ?? 9))).toBeLessThan(1e-3);
    }
    expect([a.familiarity?.length, a.heat?.length]).toEqual([5, 5 * 3 * 64]);
    for (const output of ['familiarity', 'heat'] as const) {
      for (const [i, value] of (a[output] ?? []).entries())
        expect(Math.abs(value - (b[output]?.[i] ?? 9))).toBeLessThan(1e-3);
    }
  });

  it('tells what each place of the photo adds: over all places it is the logit', async () => {
    const engine = await openEngine(smallGraph(2));
    const { probabilities = new Float32Array(), heat = new Float32Array() } = await engine.run(
      await drawnPixels(64, 1),
      1,
      { heat: true },
    );
    await engine.close();
    const places = heat.length / 3;
    const logits = [0, 1, 2].map(
      (c) => heat.subarray(c * places, (c + 1) * places).reduce((sum, value) => sum + value, 0) / places,
    );
    const powers = logits.map(Math.exp);
    const sum = powers.reduce((a, b) => a + b, 0);
    for (const [c, power] of powers.entries()) expect(probabilities[c]).toBeCloseTo(power / sum, 4);
  });

  it('finds a photo as familiar as the same calculation outside the graph', async () => {
    const random = seededRandom(2);
    const directions = Float32Array.from({ length: 3 * 48 }, () => normal(random) / 7);
    const head = { weights: new Float32Array(48 * 3), bias: new Float32Array(3), directions };
    const backbone = backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 2), {
      architecture: SMALL_ARCHITECTURE,
    });
    const engine = await openEngine(servingGraph(backbone, head));
    const { features, familiarity = [] } = await engine.run(await drawnPixels(64, 3), 3);
    await engine.close();
    const expected = familiarityOf(directions, features, 3);
    for (const [photo, value] of familiarity.entries()) expect(value).toBeCloseTo(expected[photo] ?? 9, 4);
  });

  it.each(['onnxruntime', 'wasm'] as const)(
    'gives many photos the answers it gives each (%s)',
    async (prefer) => {
      const engine = await openEngine(smallGraph(4), { prefer });
      const pixels = await drawnPixels(64, 19);
      const together = await engine.run(pixels, 19);
      const photoLength = 64 * 64 * 3;
      for (const photo of [0, 7, 8, 18]) {
        const alone = await engine.run(pixels.subarray(photo * photoLength, (photo + 1) * photoLength), 1);
        for (const [i, value] of alone.features.entries()) {
          expect(together.features[photo * 48 + i]).toBeCloseTo(value, 4);
        }
        for (const [i, value] of (alone.probabilities ?? []).entries()) {
          expect(together.probabilities?.[photo * 3 + i]).toBeCloseTo(value, 5);
        }
      }
      await engine.close();
    },
  );

  it('serves the event loop while it runs many photos', async () => {
    const engine = await openEngine(smallGraph(4), { prefer: 'wasm' });
    let turns = 0;
    const ticking = setInterval(() => (turns += 1), 0);
    await engine.run(await drawnPixels(64, 64), 64);
    clearInterval(ticking);
    await engine.close();
    expect(turns).toBeGreaterThan(2);
  });

  it('says what it is without a head, and takes no photo as an answer', async () => {
    const engine = await openEngine(
      backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 1), { architecture: SMALL_ARCHITECTURE }),
    );
    expect(engine).toMatchObject({ inputSize: 64, featureDimension: 48, classes: undefined });
    expect(await engine.run(new Uint8Array(), 0)).toEqual({ features: new Float32Array() });
    await engine.close();
  });

  it('refuses pixels of another length', async () => {
    const engine = await openEngine(smallGraph(1));
    await expect(engine.run(new Uint8Array(100), 1)).rejects.toThrow('12288 bytes; the engine got 100');
    await engine.close();
  });

  it('leaves no tensor behind', async () => {
    const { tf } = await loadTensorFlow();
    const before = tf.memory().numTensors;
    const engine = await openEngine(smallGraph(2), { prefer: 'wasm' });
    await engine.run(await drawnPixels(64, 10), 10);
    await engine.close();
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(['onnxruntime', 'wasm'] as const)('names a graph that is cut off (%s)', async (prefer) => {
    const graph = smallGraph(1);
    for (const share of [0.1, 0.5, 0.9, 0.999]) {
      const cut = graph.subarray(0, Math.floor(graph.length * share));
      await expect(openEngine(cut, { prefer })).rejects.toMatchObject({ code: 'model-broken' });
    }
  });

  it('names a graph that is no model, lacks our outputs or holds an operation it cannot run', async () => {
    const broken = expect.objectContaining({ code: 'model-broken' });
    await expect(openEngine(Buffer.from('nothing'))).rejects.toEqual(broken);
    const model = decodeOnnx(smallGraph(1));
    const unnamed = encodeOnnx({ ...model, graph: { ...model.graph, output: [] } });
    await expect(openEngine(unnamed)).rejects.toEqual(broken);
    for (const node of model.graph.node)
      if (node.opType === 'GlobalAveragePool') node.opType = 'GlobalMaxPool';
    await expect(openEngine(encodeOnnx(model), { prefer: 'wasm' })).rejects.toThrow(
      'the operation GlobalMaxPool',
    );
    for (const node of model.graph.node) if (node.opType === 'GlobalMaxPool') node.opType = 'NoSuchThing';
    await expect(openEngine(encodeOnnx(model))).rejects.toEqual(broken);
  });
});

describe('openClassicalEngine', () => {
  it('gives the fixed features, and with a head their probabilities', async () => {
    const { dimension } = CLASSICAL_EXTRACTOR;
    const random = seededRandom(3);
    const head = {
      weights: Float32Array.from({ length: dimension * 2 }, () => normal(random) / 30),
      bias: Float32Array.of(0, 0),
    };
    const engine = openClassicalEngine(head);
    expect(engine).toMatchObject({
      name: 'classical',
      inputSize: 224,
      featureDimension: dimension,
      classes: 2,
    });
    const pixels = await drawnPixels(224, 2);
    const { features, probabilities } = await engine.run(pixels, 2);
    const second = classicalFeatures(pixels.subarray(pixels.length / 2), 224);
    expect(features.subarray(dimension)).toEqual(second);
    expect(probabilities).toEqual(applyHead(head, features, 2));
    expect(openClassicalEngine().classes).toBeUndefined();
  });
});
