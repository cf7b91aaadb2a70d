import { describe, expect, it } from 'vitest';
import { backboneGraph } from './backbone.ts';
import { decodePhoto } from './decode.ts';
import { type DrawnClass, drawPhoto } from './drawn.ts';
import { openEngine } from './engine.ts';
import { storeInHalves } from './half-floats.ts';
import { elementType, floatTensor, halvesOf } from './onnx.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from './random-backbone.ts';

const architecture = SMALL_ARCHITECTURE;
const engines = ['onnxruntime', 'wasm'] as const;

async function featuresOf(graph: Uint8Array, prefer: (typeof engines)[number]): Promise<Float32Array> {
  const kinds: DrawnClass[] = ['dandelion', 'grass', 'daisy'];
  const photos = kinds.map(async (kind, seed) => decodePhoto(await drawPhoto(kind, seed), { size: 64 }));
  const pixels = Buffer.concat((await Promise.all(photos)).map((photo) => photo.pixels));
  const engine = await openEngine(graph, { prefer });
  const { features } = await engine.run(pixels, kinds.length);
  await engine.close();
  return features;
}

const largestDifference = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? Number.POSITIVE_INFINITY))), 0);

describe('a backbone in half floats', () => {
  it.each([7, 8])('gives the features of 32-bit floats on both engines (network %i)', async (seed) => {
    const state = randomStateDict(architecture, seed);
    const [floats, halves] = (['float32', 'float16'] as const).map((precision) =>
      backboneGraph(state, { architecture, precision }),
    ) as [Uint8Array, Uint8Array];
    expect(halves.length).toBeLessThan(0.75 * floats.length);
    const expected = await featuresOf(floats, 'onnxruntime');
    const [native, wasm] = [await featuresOf(halves, 'onnxruntime'), await featuresOf(halves, 'wasm')];
    // 11 bits of mantissa: a weight is off by at most one part in 2048.
    const largest = expected.reduce((most, value) => Math.max(most, value), 0);
    expect(largestDifference(native, expected)).toBeGreaterThan(0);
    expect(largestDifference(native, expected)).toBeLessThan(largest / 500);
    expect(largestDifference(native, wasm)).toBeLessThan(1e-3);
  });
});

describe('storeInHalves', () => {
  it('keeps a kernel that 16 bits cannot say, and all that is no kernel', () => {
    const constants = [
      floatTensor('huge', [1, 1, 1, 2], Float32Array.of(1, 1e6)),
      floatTensor('usual', [1, 1, 1, 2], Float32Array.of(1, 0.1)),
      floatTensor('bias', [2], Float32Array.of(1, 0.1)),
    ];
    const stored = storeInHalves({ nodes: [], constants });
    expect(stored.constants.map(({ name }) => name)).toEqual(['huge', 'usual.half', 'bias']);
    expect(stored.nodes).toMatchObject([{ opType: 'Cast', input: ['usual.half'], output: ['usual'] }]);
    const [, usual] = stored.constants;
    expect(usual?.dataType).toBe(elementType.float16);
    expect(usual && [...halvesOf(usual)]).toEqual([1, 0.0999755859375]);
  });
});
