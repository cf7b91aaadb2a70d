import { setImmediate as eventLoop } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { trainHead } from './classifier.ts';
import { type Engine, openEngine } from './engine.ts';
import { normal, seededRandom } from './random.ts';
import { randomBackboneGraph } from './random-backbone.ts';
import { servingGraph } from './serving-graph.ts';
import { loadTensorFlow } from './tensorflow.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Of the whole process: beyond what one such run leaves by chance (allocators keep pages, TensorFlow.js its pools). */
const LEVEL_RESIDENT_BYTES = 40_000_000;
/** Of what JavaScript holds on to, which hardly varies: below what the smallest thing lost in each round adds up to. */
const LEVEL_HELD_BYTES = 2_000_000;

interface Memory {
  resident: number;
  held: number;
}

async function measureMemory(): Promise<Memory> {
  // What buffers hold outside of the heap is given back a turn after they were collected.
  collectGarbage();
  await eventLoop();
  collectGarbage();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { resident: rss, held: heapUsed + external };
}

/** By how much memory grew in the last three quarters of the rounds: the first quarter fills pools and caches. */
async function growthBytes(rounds: number, round: (index: number) => Promise<void>): Promise<Memory> {
  let settled: Memory = { resident: 0, held: 0 };
  for (let index = 0; index < rounds; index += 1) {
    if (index === Math.floor(rounds / 4)) settled = await measureMemory();
    await round(index);
  }
  const { resident, held } = await measureMemory();
  return { resident: resident - settled.resident, held: held - settled.held };
}

function expectLevel(growth: Memory): void {
  expect(growth.held).toBeLessThan(LEVEL_HELD_BYTES);
  expect(growth.resident).toBeLessThan(LEVEL_RESIDENT_BYTES);
}

function smallServingGraph(): Uint8Array {
  const random = seededRandom(1);
  return servingGraph(randomBackboneGraph(1), {
    weights: Float32Array.from({ length: 48 * 2 }, () => normal(random)),
    bias: Float32Array.of(0, 0),
  });
}

describe('a process that goes on for long', () => {
  it.each([
    ['onnxruntime', 10_000],
    ['wasm', 10_000],
  ] as const)('keeps its memory level over predictions (%s, %i photos)', async (prefer, photos) => {
    const { tf } = await loadTensorFlow('tfjs-wasm');
    const engine: Engine = await openEngine(smallServingGraph(), { prefer });
    // 12 kB each: lost, 7 500 of them are 92 MB.
    const pixels = new Uint8Array(64 * 64 * 3).fill(90);
    const tensors = tf.memory().numTensors;
    const growth = await growthBytes(photos, async (index) => {
      pixels[index % pixels.length] = index % 256;
      await engine.run(pixels.slice(), 1, { heat: true });
    });
    expect(tf.memory().numTensors).toBe(tensors);
    expectLevel(growth);
    await engine.close();
  });

  it('keeps its memory level over 50 trainings', async () => {
    const { tf } = await loadTensorFlow();
    const random = seededRandom(2);
    // 120 kB of features: lost, those of 38 trainings are 4.7 MB.
    const [photos, dimension] = [60, 512];
    const labels = Int32Array.from({ length: photos }, (_, photo) => photo % 2);
    const features = Float32Array.from(
      { length: photos * dimension },
      (_, place) => normal(random) + (labels[Math.floor(place / dimension)] ?? 0),
    );
    const data = { features, labels, dimension, classes: ['dandelion', 'grass'], seed: 1 };
    await trainHead(data);
    const tensors = tf.memory().numTensors;
    const growth = await growthBytes(50, async (seed) => {
      await trainHead({ ...data, seed });
    });
    expect(tf.memory().numTensors).toBe(tensors);
    expectLevel(growth);
  });
});
