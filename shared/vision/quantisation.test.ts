import { describe, expect, it } from 'vitest';
import { backboneGraph } from './backbone.ts';
import { decodePhoto } from './decode.ts';
import { type DrawnClass, drawPhoto } from './drawn.ts';
import { openEngine } from './engine.ts';
import { floatsOf, wholesOf } from './onnx.ts';
import { addSpreads, quantiseWeights, rangeOf } from './quantisation.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from './random-backbone.ts';

describe('rangeOf', () => {
  const spread = { mean: Float64Array.of(1, -2), variance: Float64Array.of(4, 1) };

  it('reaches six standard deviations around every channel', () => {
    const { scale, zeroPoint } = rangeOf(spread, false);
    expect(-zeroPoint * scale).toBeCloseTo(1 - 6 * 2, 1);
    expect((255 - zeroPoint) * scale).toBeCloseTo(1 + 6 * 2, 1);
  });

  it('ends at 0 and 6 after a ReLU6', () => {
    const { scale, zeroPoint } = rangeOf(spread, true);
    expect([zeroPoint, 255 * scale]).toEqual([0, expect.closeTo(6, 5)]);
  });

  it('can say something of channels that are always the same', () => {
    expect(rangeOf({ mean: Float64Array.of(0), variance: Float64Array.of(0) }, false).scale).toBeGreaterThan(
      0,
    );
  });

  it('takes the variances of a sum together', () => {
    expect(addSpreads(spread, spread)).toEqual({
      mean: Float64Array.of(2, -4),
      variance: Float64Array.of(8, 2),
    });
  });
});

describe('quantiseWeights', () => {
  const kernel = Float32Array.of(0.5, -1, 0.25, 1e-12, 0, 0);
  const bias = Float32Array.of(0.3, 2);
  const { constants } = quantiseWeights(
    'layer',
    { kernel, shape: [2, 3, 1, 1], bias },
    { scale: 0.1, zeroPoint: 9 },
  );
  const [bytes, scales, wholes, biasScales] = constants;
  if (!bytes || !scales || !wholes || !biasScales) throw new Error('constants are missing');

  it('keeps each weight to half a step of its channel, and no weight beyond 63', () => {
    const steps = floatsOf(scales);
    for (const [i, whole] of wholesOf(bytes).entries()) {
      const step = steps[Math.floor(i / 3)] ?? 0;
      expect(Math.abs(whole * step - (kernel[i] ?? 9))).toBeLessThanOrEqual(step / 2);
      expect(Math.abs(whole)).toBeLessThanOrEqual(63);
    }
  });

  it('keeps the bias of a channel whose weights are next to nothing', () => {
    const steps = floatsOf(biasScales);
    for (const [channel, whole] of wholesOf(wholes).entries())
      expect(whole * (steps[channel] ?? 0)).toBeCloseTo(bias[channel] ?? 9, 3);
  });
});

describe('a backbone in bytes', () => {
  const stateDict = randomStateDict(SMALL_ARCHITECTURE, 7);
  const graphs = {
    float32: backboneGraph(stateDict, { architecture: SMALL_ARCHITECTURE }),
    int8: backboneGraph(stateDict, { architecture: SMALL_ARCHITECTURE, precision: 'int8' }),
  };

  async function featuresOf(precision: keyof typeof graphs, prefer: 'onnxruntime' | 'wasm') {
    const classes: DrawnClass[] = ['dandelion', 'grass', 'daisy'];
    const photos = classes.map(async (kind, seed) => decodePhoto(await drawPhoto(kind, seed), { size: 64 }));
    const pixels = Buffer.concat((await Promise.all(photos)).map((photo) => photo.pixels));
    const engine = await openEngine(graphs[precision], { prefer });
    const { features } = await engine.run(pixels, 3);
    await engine.close();
    return [0, 1, 2].map((photo) => features.subarray(photo * 48, (photo + 1) * 48));
  }

  it.each(['onnxruntime', 'wasm'] as const)(
    'gives features in the direction of those in floats (%s)',
    async (prefer) => {
      const [inFloats, inBytes] = await Promise.all([
        featuresOf('float32', 'onnxruntime'),
        featuresOf('int8', prefer),
      ]);
      for (const [photo, features] of inBytes.entries())
        expect(cosine(features, inFloats[photo] ?? new Float32Array())).toBeGreaterThan(0.99);
    },
  );

  it('is understood alike by both engines, though one leaves roundings out', async () => {
    const [native, wasm] = await Promise.all([featuresOf('int8', 'onnxruntime'), featuresOf('int8', 'wasm')]);
    for (const [photo, features] of native.entries())
      expect(cosine(features, wasm[photo] ?? new Float32Array())).toBeGreaterThan(0.98);
  });

  it('is the same bytes for the same weights', () => {
    const again = backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 7), {
      architecture: SMALL_ARCHITECTURE,
      precision: 'int8',
    });
    expect(again).toEqual(graphs.int8);
  });
});

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
