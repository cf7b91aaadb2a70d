import { describe, expect, it } from 'vitest';
import { openEngine } from './engine.ts';
import { normal, seededRandom } from './random.ts';
import { randomBackboneGraph } from './random-backbone.ts';
import { servingGraph } from './serving-graph.ts';
import { isNativeInstalled } from './tensorflow.ts';

const installed = isNativeInstalled();
console.warn(
  installed
    ? 'SKIPPED: how tfjs-node is refused where it is missing: @tensorflow/tfjs-node is installed.'
    : 'SKIPPED: tfjs-node is not held against onnxruntime: @tensorflow/tfjs-node is not installed.',
);

function graph(): Uint8Array {
  const random = seededRandom(3);
  return servingGraph(randomBackboneGraph(3), {
    weights: Float32Array.from({ length: 48 * 2 }, () => normal(random) / 4),
    bias: Float32Array.of(0.1, -0.1),
    directions: Float32Array.from({ length: 2 * 48 }, () => Math.abs(normal(random)) / 7),
  });
}

describe('tfjs-node', () => {
  it.skipIf(!installed)('computes the same as onnxruntime', async () => {
    const random = seededRandom(4);
    const pixels = Uint8Array.from({ length: 5 * 64 * 64 * 3 }, () => random() * 256);
    const onnxruntime = await openEngine(graph());
    const native = await openEngine(graph(), { prefer: 'tfjs-node' });
    expect([onnxruntime.name, native.name]).toEqual(['onnxruntime-node', 'tfjs-node']);
    const [a, b] = await Promise.all(
      [onnxruntime, native].map((engine) => engine.run(pixels, 5, { heat: true })),
    );
    await Promise.all([onnxruntime.close(), native.close()]);
    for (const output of ['features', 'probabilities', 'familiarity', 'heat'] as const) {
      const expected = a?.[output] ?? [];
      expect(expected.length).toBeGreaterThan(0);
      for (const [i, value] of expected.entries())
        expect(Math.abs(value - (b?.[output]?.[i] ?? 9))).toBeLessThan(1e-3);
    }
  });

  it.skipIf(installed)('is refused by name where it is not installed', async () => {
    await expect(openEngine(graph(), { prefer: 'tfjs-node' })).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('@tensorflow/tfjs-node is not installed'),
    });
  });
});
