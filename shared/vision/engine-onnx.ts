import { availableParallelism } from 'node:os';
import { DandelionError } from '../errors.ts';
import { graphNames } from './backbone.ts';
import type { EngineCore, GraphShape } from './engine.ts';

/** Measured with EfficientNet-Lite0 on two cores: 8 photos give the highest throughput, 32 half of it. */
const BATCH = 8;

type OnnxRuntime = typeof import('onnxruntime-node');

async function importOnnxRuntime(): Promise<OnnxRuntime | { unavailable: string }> {
  try {
    const runtime: OnnxRuntime & { default?: OnnxRuntime } = await import('onnxruntime-node');
    return runtime.default ?? runtime;
  } catch (error) {
    return { unavailable: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Opens onnxruntime's CPU engine.
 *
 * Threads of a run do not spin while they wait for work: measured on two cores, spinning makes a lone photo a
 * millisecond faster and triples its CPU time, which decoding and other functions on the machine need.
 *
 * @returns the reason instead of an engine where the native library cannot be loaded on this platform
 * @throws DandelionError `model-broken` when onnxruntime refuses the graph
 */
export async function openOnnxRuntime(
  graph: Uint8Array,
  shape: GraphShape,
  threads = Math.min(4, availableParallelism()),
): Promise<EngineCore | { unavailable: string }> {
  const runtime = await importOnnxRuntime();
  if ('unavailable' in runtime) return runtime;
  const session = await runtime.InferenceSession.create(graph, {
    executionProviders: ['cpu'],
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  }).catch((cause: unknown) => {
    throw new DandelionError('model-broken', 'onnxruntime refuses the graph; store it again.', { cause });
  });
  const { inputSize, classes } = shape;
  // Only what is asked for is copied out: the feature map is 49 times as large as the features.
  const wanted: string[] = [graphNames.features];
  if (classes !== undefined) wanted.push(graphNames.probabilities);

  return {
    name: 'onnxruntime-node',
    batch: BATCH,
    close: () => session.release(),
    async runBatch(pixels, n) {
      const image = new runtime.Tensor('uint8', pixels, [n, inputSize, inputSize, 3]);
      const outputs = await session.run({ [graphNames.image]: image }, wanted);
      const floats = (name: string): Float32Array => {
        const data = outputs[name]?.data;
        if (data instanceof Float32Array) return data;
        throw new DandelionError('model-broken', `The graph's output "${name}" is not of 32-bit floats.`);
      };
      const features = floats(graphNames.features);
      return classes === undefined
        ? { features }
        : { features, probabilities: floats(graphNames.probabilities) };
    },
  };
}
