import { DandelionError } from '../errors.ts';
import { applyHead } from './apply-head.ts';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from './classical.ts';
import { type OnnxRuntimeOptions, openOnnxRuntime } from './engine-onnx.ts';
import { familiarityOf } from './familiarity.ts';
import { type GraphShape, graphShape } from './graph.ts';
import type { LinearHead } from './serving-graph.ts';
import { sketchFeatures } from './sketch.ts';

export type EngineName = 'onnxruntime-node' | 'tfjs-wasm' | 'tfjs-node' | 'classical';

export interface EngineResult {
  /** Row-major [n, featureDimension]. */
  features: Float32Array;
  /** Row-major [n, classes], rows sum to 1; only where the graph has a head. */
  probabilities?: Float32Array;
  /** [n]: cosine with the nearest class (see familiarity.ts); only where the head knows its classes' directions. */
  familiarity?: Float32Array;
  /** Row-major [n, classes, side, side]: what each place adds to each class; only where asked for and the graph has it. */
  heat?: Float32Array;
}

export interface RunOptions {
  /** Gives `heat` too. */
  heat?: boolean | undefined;
}

/** Turns photos into features and, with a head, into class probabilities. */
export interface Engine {
  readonly name: EngineName;
  /** Width and height of a photo in pixels. */
  readonly inputSize: number;
  readonly featureDimension: number;
  /** Number of classes; undefined without a head. */
  readonly classes: number | undefined;
  /** Places along a side of the heat; undefined where the graph has none. */
  readonly heatSide: number | undefined;
  /**
   * Runs `n` photos; `pixels` is uint8 [n, inputSize, inputSize, 3], RGB, row-major. Many photos are run in
   * small batches with the event loop served between them.
   */
  run(pixels: Uint8Array, n: number, options?: RunOptions): Promise<EngineResult>;
  /** Gives back native memory; the engine must not be run afterwards. */
  close(): Promise<void>;
}

export const enginePreferences = ['onnxruntime', 'tfjs-node', 'wasm'] as const;
export type EnginePreference = (typeof enginePreferences)[number];

export interface EngineOptions extends OnnxRuntimeOptions {
  /**
   * Which engine to open; default `onnxruntime`, the fastest. Where that does not load, TensorFlow.js takes its place with
   * the better of its backends; the other two are taken at their word.
   */
  prefer?: EnginePreference;
  /** Told why onnxruntime is not used although it was preferred, to be logged. */
  onFallback?: (reason: string) => void;
}

/** What an engine's file gives; {@link batched} makes an {@link Engine} of it. */
export interface EngineCore {
  readonly name: EngineName;
  /** Photos it takes at once: as few as give its full throughput, for a batch blocks the event loop. */
  readonly batch: number;
  runBatch(pixels: Uint8Array, n: number, options: RunOptions): Promise<EngineResult>;
  close(): Promise<void>;
}

/** Undefined: whichever works. */
const tensorFlowBackends = { onnxruntime: undefined, 'tfjs-node': 'tfjs-node', wasm: 'tfjs-wasm' } as const;

/** The size that decodePhoto gives unless told otherwise, so that all engines take the same pixels. */
const CLASSICAL_INPUT_SIZE = 224;

/**
 * Opens an engine on an ONNX graph with the inputs and outputs of `graphNames` (see graph.ts).
 *
 * onnxruntime-node is used where its library loads on this platform, TensorFlow.js otherwise; both give the same numbers
 * within 1e-3 where the graph computes in floats. Where it computes in bytes only the direction of their features is the
 * same (cosine above 0.98).
 *
 * @throws DandelionError `model-broken` when the graph is not one of ours or is damaged; what {@link loadTensorFlow} throws
 *   of a backend that is preferred
 */
export async function openEngine(graph: Uint8Array, options: EngineOptions = {}): Promise<Engine> {
  const { prefer = 'onnxruntime' } = options;
  if (prefer === 'onnxruntime') {
    const opened = await openOnnxRuntime(graph, options);
    if ('core' in opened) return batched(opened.core, opened.shape);
    options.onFallback?.(opened.unavailable);
  }
  // Only who needs it pays for reading the graph in JavaScript: some 50 ms and as much garbage.
  const [{ decodeOnnx, shapeOf }, { openTensorFlow }] = await Promise.all([
    import('./onnx.ts'),
    import('./engine-tensorflow.ts'),
  ]);
  const model = decodeOnnx(graph).graph;
  const values = [...model.input, ...model.output];
  const shape = graphShape((name) => {
    const value = values.find((candidate) => candidate.name === name);
    return value === undefined ? undefined : shapeOf(value);
  });
  return batched(await openTensorFlow(model, shape, tensorFlowBackends[prefer]), shape);
}

/**
 * The engine without a backbone: fixed features of colour and texture (see classical.ts) and, with a head,
 * the probabilities it gives them.
 */
export function openClassicalEngine(head?: LinearHead): Engine {
  const { dimension } = CLASSICAL_EXTRACTOR;
  const directions = head?.directions;
  const shape = {
    inputSize: CLASSICAL_INPUT_SIZE,
    featureDimension: dimension,
    classes: head?.bias.length,
    familiarity: directions !== undefined,
    heatSide: undefined,
  };
  const photoLength = CLASSICAL_INPUT_SIZE ** 2 * 3;
  const core: EngineCore = {
    name: 'classical',
    batch: 1,
    async close() {},
    async runBatch(pixels, n) {
      const features = new Float32Array(n * dimension);
      for (let photo = 0; photo < n; photo += 1) {
        const part = pixels.subarray(photo * photoLength, (photo + 1) * photoLength);
        features.set(classicalFeatures(part, CLASSICAL_INPUT_SIZE), photo * dimension);
      }
      return {
        features,
        ...(head && { probabilities: applyHead(head, features, n) }),
        ...(directions && { familiarity: familiarityOf(directions, features, n) }),
      };
    },
  };
  return batched(core, shape);
}

/**
 * Class probabilities of photos, by an engine whose graph has a head.
 *
 * @param pixels as {@link Engine.run} takes them
 * @returns row-major [photos, classes]
 * @throws DandelionError `model-broken` when the graph gives none, or something that is no number
 */
export async function classifyPixels(
  engine: Engine,
  classes: readonly string[],
  pixels: Uint8Array,
  photos: number,
): Promise<Float32Array> {
  const { probabilities } = await engine.run(pixels, photos);
  return checkedScores(probabilities, photos * classes.length);
}

/** What a model says of one photo. */
export interface PhotoAnswer {
  /** Probabilities in the order of the model's classes. */
  scores: Float32Array;
  /** Of its features; see sketch.ts. */
  sketch: Float32Array;
  /** Cosine with the nearest class (see familiarity.ts); undefined for a model that does not tell. */
  familiarity?: number | undefined;
  /** Row-major [classes, side, side]: what each place adds to each class; only where asked for. */
  heat?: Float32Array | undefined;
}

/**
 * Answers one photo, by an engine whose graph has a head. The features are there anyway, and their sketch costs 6
 * microseconds.
 *
 * @throws DandelionError as {@link classifyPixels}
 */
export async function answerPhoto(
  engine: Engine,
  classes: readonly string[],
  pixels: Uint8Array,
  options: RunOptions = {},
): Promise<PhotoAnswer> {
  const { features, probabilities, familiarity, heat } = await engine.run(pixels, 1, options);
  const scores = checkedScores(probabilities, classes.length);
  return { scores, sketch: sketchFeatures(features), familiarity: familiarity?.[0], heat };
}

/** @throws DandelionError `model-broken` */
function checkedScores(scores: Float32Array | undefined, expected: number): Float32Array {
  if (scores?.length === expected && !scores.some(Number.isNaN)) return scores;
  throw new DandelionError(
    'model-broken',
    `The engine gave ${scores?.length ?? 'no'} probabilities where ${expected} belong.`,
  );
}

/** Checks the pixels, cuts them into batches, joins the results. */
function batched(core: EngineCore, shape: GraphShape): Engine {
  const { inputSize, featureDimension, classes } = shape;
  const { batch } = core;
  const photoLength = inputSize * inputSize * 3;
  return {
    name: core.name,
    inputSize,
    featureDimension,
    classes,
    close: () => core.close(),
    heatSide: shape.heatSide,
    async run(pixels, n, options = {}) {
      if (pixels.length !== n * photoLength) {
        throw new DandelionError(
          'internal',
          `${n} photos of ${inputSize} pixels are ${n * photoLength} bytes; the engine got ${pixels.length}.`,
        );
      }
      if (n > 0 && n <= batch) return core.runBatch(pixels, n, options);
      const parts: EngineResult[] = [];
      for (let start = 0; start < n; start += batch) {
        const count = Math.min(batch, n - start);
        const part = pixels.subarray(start * photoLength, (start + count) * photoLength);
        parts.push(await core.runBatch(part, count, options));
        await new Promise(setImmediate);
      }
      return joined(parts, classes);
    },
  };
}

function joined(parts: readonly EngineResult[], classes: number | undefined): EngineResult {
  const concat = (name: keyof EngineResult): Float32Array => {
    const arrays = parts.map((part) => part[name] ?? new Float32Array());
    const whole = new Float32Array(arrays.reduce((length, array) => length + array.length, 0));
    let start = 0;
    for (const array of arrays) {
      whole.set(array, start);
      start += array.length;
    }
    return whole;
  };
  const [first] = parts;
  return {
    features: concat('features'),
    ...(classes !== undefined && { probabilities: concat('probabilities') }),
    ...(first?.familiarity && { familiarity: concat('familiarity') }),
    ...(first?.heat && { heat: concat('heat') }),
  };
}
