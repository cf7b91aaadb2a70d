import { availableParallelism } from 'node:os';
import type { InferenceSession } from 'onnxruntime-node';
import { DandelionError } from '../errors.ts';
import type { EngineCore } from './engine.ts';
import { type GraphShape, graphNames, graphShape } from './graph.ts';

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

/** How onnxruntime is to run. */
export interface OnnxRuntimeOptions {
  /** Threads of one run; default one a core, 4 at most. */
  threads?: number | undefined;
  /**
   * Lets the threads of a run wait for one another without sleeping: measured on two cores, a lone photo takes 5.3 ms
   * instead of 7.1. For whoever has the cores to himself; decoding and other functions on the machine need them.
   */
  spin?: boolean | undefined;
  /**
   * The graph is one that {@link writeOptimisedGraph} wrote on a machine like this. It is used where it lies, so the
   * bytes must not change: measured with EfficientNet-Lite0, a session takes 5 ms to open instead of 95, and no weights
   * of its own.
   */
  optimised?: boolean | undefined;
}

/** onnxruntime's version, which an optimised graph belongs to; undefined where it does not load on this platform. */
export async function onnxRuntimeVersion(): Promise<string | undefined> {
  const runtime = await importOnnxRuntime();
  return 'unavailable' in runtime ? undefined : runtime.env.versions.node;
}

/**
 * Writes a graph as onnxruntime has it in memory on this machine: operators fused, weights in the order that the
 * processor likes, in a format that is not parsed (https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html).
 *
 * @throws DandelionError `model-broken`, `internal` where onnxruntime does not load
 */
export async function writeOptimisedGraph(graph: Uint8Array, path: string): Promise<void> {
  const runtime = await importOnnxRuntime();
  if ('unavailable' in runtime) throw new DandelionError('internal', runtime.unavailable);
  const session = await createSession(runtime, graph, {
    executionProviders: ['cpu'],
    intraOpNumThreads: 1,
    optimizedModelFilePath: path,
    // It warns that the result fits this kind of machine only.
    logSeverityLevel: 3,
    extra: { session: { save_model_format: 'ORT' } },
  });
  await session.release();
}

/**
 * Opens onnxruntime's CPU engine.
 *
 * @returns the reason instead of an engine where the native library cannot be loaded on this platform
 * @throws DandelionError `model-broken` when onnxruntime refuses the graph, or it is none of ours
 */
export async function openOnnxRuntime(
  graph: Uint8Array,
  { threads = Math.min(4, availableParallelism()), spin = false, optimised = false }: OnnxRuntimeOptions = {},
): Promise<{ core: EngineCore; shape: GraphShape } | { unavailable: string }> {
  const runtime = await importOnnxRuntime();
  if ('unavailable' in runtime) return runtime;
  const session = await createSession(runtime, graph, {
    executionProviders: ['cpu'],
    graphOptimizationLevel: optimised ? 'disabled' : 'all',
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: {
      session: {
        // Weights outside the arena, which would reserve twice their size: less memory, the same speed.
        use_device_allocator_for_initializers: '1',
        intra_op: { allow_spinning: spin ? '1' : '0' },
        // Or it would go on into the time of whoever comes next.
        force_spinning_stop: '1',
        ...(optimised ? usedWhereItLies : {}),
      },
    },
  });
  const shape = graphShape((name) => lengthsOf(session, name));
  // Only what is asked for is copied out: the feature map is 49 times as large as the features.
  const wanted: string[] = [graphNames.features];
  if (shape.classes !== undefined) wanted.push(graphNames.probabilities);
  if (shape.familiarity) wanted.push(graphNames.familiarity);

  if (optimised) inUse.set(session, graph);
  const core: EngineCore = {
    name: 'onnxruntime-node',
    batch: BATCH,
    async close() {
      await session.release();
      inUse.delete(session);
    },
    async runBatch(pixels, n, { heat = false }) {
      // It takes no memory that threads share.
      const owned = pixels.buffer instanceof SharedArrayBuffer ? pixels.slice() : pixels;
      const image = new runtime.Tensor('uint8', owned, [n, shape.inputSize, shape.inputSize, 3]);
      const givesHeat = heat && shape.heatSide !== undefined;
      const names = givesHeat ? [...wanted, graphNames.heat] : wanted;
      const outputs = await session.run({ [graphNames.image]: image }, names);
      const floats = (name: string): Float32Array => {
        const data = outputs[name]?.data;
        if (data instanceof Float32Array) return data;
        throw new DandelionError('model-broken', `The graph's output "${name}" is not of 32-bit floats.`);
      };
      return {
        features: floats(graphNames.features),
        ...(shape.classes !== undefined && { probabilities: floats(graphNames.probabilities) }),
        ...(shape.familiarity && { familiarity: floats(graphNames.familiarity) }),
        ...(givesHeat && { heat: floats(graphNames.heat) }),
      };
    },
  };
  return { core, shape };
}

const usedWhereItLies = {
  load_model_format: 'ORT',
  use_ort_model_bytes_directly: '1',
  use_ort_model_bytes_for_initializers: '1',
};

/** Bytes that native code reads: they must live as long as the session does. */
const inUse = new Map<InferenceSession, Uint8Array>();

async function createSession(
  runtime: OnnxRuntime,
  graph: Uint8Array,
  options: InferenceSession.SessionOptions,
): Promise<InferenceSession> {
  try {
    return await runtime.InferenceSession.create(graph, options);
  } catch (cause) {
    throw new DandelionError(
      'model-broken',
      'onnxruntime refuses the graph: it is damaged or not an ONNX model; store it again.',
      { cause },
    );
  }
}

/** Lengths of an input or output, undefined where free; undefined for a name that is not there. */
function lengthsOf(session: InferenceSession, name: string): (number | undefined)[] | undefined {
  const values = [...session.inputMetadata, ...session.outputMetadata];
  const value = values.find((candidate) => candidate.name === name);
  if (value === undefined || !value.isTensor) return undefined;
  return value.shape.map((length) => (typeof length === 'number' && length > 0 ? length : undefined));
}
