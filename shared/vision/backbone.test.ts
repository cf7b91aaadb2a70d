import { describe, expect, it } from 'vitest';
import { type ConvolutionLayer, EFFICIENTNET_LITE0, kernelShape, layersOf } from './architecture.ts';
import { backboneGraph } from './backbone.ts';
import { openEngine } from './engine.ts';
import { applyHead } from './head.ts';
import { seededRandom } from './random.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from './random-backbone.ts';
import { servingGraph } from './serving-graph.ts';
import type { StateDict } from './torch.ts';

/** A photo or feature map: [channels][rows][columns]. */
type Map3 = number[][][];

/** Convolution, then batch normalisation, then ReLU6, each by its textbook formula, nothing folded. */
function plainLayer(input: Map3, layer: ConvolutionLayer, state: StateDict): Map3 {
  const at = (name: string, i: number) => state.get(name)?.data[i] ?? Number.NaN;
  const { kernel, stride, outputs, depthwise } = layer;
  const size = input[0]?.length ?? 0;
  const length = Math.ceil(size / stride);
  const before = Math.floor(Math.max(0, (length - 1) * stride + kernel - size) / 2);
  const places = Array.from({ length }, (_, i) => i);
  return Array.from({ length: outputs }, (_, output) =>
    places.map((row) =>
      places.map((column) => {
        let sum = 0;
        const channels = depthwise ? [output] : input.keys();
        for (const [index, channel] of [...channels].entries()) {
          for (let y = 0; y < kernel; y += 1) {
            for (let x = 0; x < kernel; x += 1) {
              const pixel = input[channel]?.[row * stride + y - before]?.[column * stride + x - before] ?? 0;
              const perOutput = (depthwise ? 1 : layer.inputs) * kernel * kernel;
              sum +=
                pixel *
                at(`${layer.convolution}.weight`, output * perOutput + (index * kernel + y) * kernel + x);
            }
          }
        }
        const norm = layer.normalisation;
        const centred = sum - at(`${norm}.running_mean`, output);
        const scaled = centred / Math.sqrt(at(`${norm}.running_var`, output) + 0.001);
        const result = scaled * at(`${norm}.weight`, output) + at(`${norm}.bias`, output);
        return layer.activation ? Math.min(6, Math.max(0, result)) : result;
      }),
    ),
  );
}

function plainFeatures(pixels: Uint8Array, state: StateDict): number[] {
  const { inputSize } = SMALL_ARCHITECTURE;
  const places = Array.from({ length: inputSize }, (_, i) => i);
  let current: Map3 = [0, 1, 2].map((c) =>
    places.map((row) =>
      places.map((column) => ((pixels[(row * inputSize + column) * 3 + c] ?? 0) - 127) / 128),
    ),
  );
  let kept: Map3 = [];
  for (const layer of layersOf(SMALL_ARCHITECTURE)) {
    if (layer.residual === 'start') kept = current;
    current = plainLayer(current, layer, state);
    if (layer.residual !== 'end') continue;
    current = current.map((plane, c) =>
      plane.map((line, row) => line.map((value, column) => value + (kept[c]?.[row]?.[column] ?? Number.NaN))),
    );
  }
  return current.map((plane) => plane.flat().reduce((a, b) => a + b, 0) / plane.flat().length);
}

const state = randomStateDict(SMALL_ARCHITECTURE, 7);
const random = seededRandom(8);
const pixels = Uint8Array.from({ length: 64 * 64 * 3 }, () => random() * 256);

describe('the backbone', () => {
  it('has the parameters that are published for EfficientNet-Lite0', () => {
    const layers = layersOf(EFFICIENTNET_LITE0);
    const kernels = layers.reduce((sum, layer) => sum + kernelShape(layer).reduce((a, b) => a * b, 1), 0);
    const normalisations = layers.reduce((sum, layer) => sum + 2 * layer.outputs, 0);
    const imageNetHead = 1280 * 1000 + 1000;
    expect(kernels + normalisations + imageNetHead).toBe(4_652_008);
  });

  it('computes what its layers say, with batch normalisation folded', async () => {
    const engine = await openEngine(backboneGraph(state, { architecture: SMALL_ARCHITECTURE }));
    const { features } = await engine.run(pixels, 1);
    await engine.close();
    const expected = plainFeatures(pixels, state);
    expect(expected.some((value) => value > 0.1)).toBe(true);
    for (const [i, value] of features.entries()) expect(value).toBeCloseTo(expected[i] ?? Number.NaN, 4);
  });

  it('is the same bytes for the same weights', () => {
    const again = randomStateDict(SMALL_ARCHITECTURE, 7);
    expect(backboneGraph(again, { architecture: SMALL_ARCHITECTURE })).toEqual(
      backboneGraph(state, { architecture: SMALL_ARCHITECTURE }),
    );
  });

  it('refuses weights of another network and names the first that does not fit', () => {
    expect(() => backboneGraph(state)).toThrow('_conv_stem.weight should be [32,3,3,3], it is [8,3,3,3]');
    const incomplete = new Map(state);
    incomplete.delete('_bn1.bias');
    expect(() => backboneGraph(incomplete, { architecture: SMALL_ARCHITECTURE })).toThrow(
      '_bn1.bias should be [48], it is missing',
    );
  });
});

describe('the serving graph', () => {
  const head = {
    weights: Float32Array.from({ length: 48 * 3 }, () => random() - 0.5),
    bias: Float32Array.of(0.1, -0.2, 0.3),
  };

  it.each(['onnxruntime', 'wasm'] as const)('gives the probabilities of its head (%s)', async (prefer) => {
    const engine = await openEngine(
      servingGraph(backboneGraph(state, { architecture: SMALL_ARCHITECTURE }), head),
      { prefer },
    );
    const { features, probabilities } = await engine.run(pixels, 1);
    await engine.close();
    expect(engine.classes).toBe(3);
    const expected = applyHead(head, features, 1);
    for (const [i, value] of expected.entries()) expect(probabilities?.[i]).toBeCloseTo(value, 5);
  });

  it('refuses a head for other features', () => {
    const other = { weights: new Float32Array(47 * 3), bias: head.bias };
    expect(() => servingGraph(backboneGraph(state, { architecture: SMALL_ARCHITECTURE }), other)).toThrow(
      'The head has 47 weights a class, the backbone 48 features',
    );
  });
});
