import type { Tensor, Tensor4D } from '@tensorflow/tfjs-core';
import { DandelionError } from '../errors.ts';
import type { EngineCore } from './engine.ts';
import { type GraphShape, graphNames } from './graph.ts';
import {
  elementType,
  floatsOf,
  halvesOf,
  type OnnxGraph,
  type OnnxNode,
  type OnnxTensor,
  wholesOf,
} from './onnx.ts';
import { loadTensorFlow, type TensorFlowBackend, type TensorFlowCore } from './tensorflow.ts';

const NONE = new Float32Array();

/** Values by name while a graph runs. Images are [N, height, width, channels] here, as TensorFlow keeps them. */
type Values = Map<string, Tensor>;

/** Pixels before and after, an axis each: photos, rows, columns, channels. */
type ExplicitPadding = [[number, number], [number, number], [number, number], [number, number]];

/** Does one node's work. */
type Step = (values: Values) => void;

interface Compiler {
  tf: TensorFlowCore;
  graph: OnnxGraph;
  /** Constants in TensorFlow's layout, kept until the engine closes. */
  kept: Tensor[];
}

function unsupported(what: string): DandelionError {
  return new DandelionError(
    'model-broken',
    `The graph holds ${what}, which the TensorFlow.js engine cannot run; use onnxruntime-node.`,
  );
}

interface Constant {
  dims: number[];
  data: Float32Array;
}

function initializer(graph: OnnxGraph, name: string | undefined): OnnxTensor | undefined {
  return graph.initializer.find((candidate) => candidate.name === name);
}

/** A float constant, or one that is made of half floats or whole numbers. */
function constant(graph: OnnxGraph, name: string | undefined): Constant {
  const tensor = initializer(graph, name);
  if (tensor !== undefined) return { dims: tensor.dims, data: floatsOf(tensor) };
  const maker = graph.node.find((node) => name !== undefined && node.output[0] === name);
  const source = isConstantConversion(graph, maker) ? initializer(graph, maker?.input[0]) : undefined;
  if (source === undefined) throw unsupported(`"${name}" that is no constant`);
  if (maker?.opType === 'Cast') return { dims: source.dims, data: new Float32Array(halvesOf(source)) };
  const scales = constant(graph, maker?.input[1]).data;
  const data = new Float32Array(wholesOf(source));
  const perScale = data.length / scales.length;
  for (const [channel, scale] of scales.entries()) {
    for (let i = channel * perScale; i < (channel + 1) * perScale; i += 1) data[i] = (data[i] ?? 0) * scale;
  }
  return { dims: source.dims, data };
}

/**
 * Whether a node makes floats of the half floats of a constant, or of its whole numbers along its first axis: no work for
 * a run.
 */
function isConstantConversion(graph: OnnxGraph, node: OnnxNode | undefined): boolean {
  if (node === undefined || initializer(graph, node.input[0]) === undefined) return false;
  if (node.opType === 'Cast') return true;
  if (node.opType !== 'DequantizeLinear') return false;
  const axis = attribute(node, 'axis');
  // A 0 is not written out.
  if (node.input.length === 2 && axis !== undefined && (axis.i ?? 0) === 0) return true;
  throw unsupported('another DequantizeLinear of a constant');
}

/** The step between neighbouring bytes, and the byte that stands for 0. */
function gridOf(graph: OnnxGraph, node: OnnxNode): { scale: number; zeroPoint: number } {
  const zero = initializer(graph, node.input[2]);
  if (zero === undefined || zero.dataType !== elementType.uint8) throw unsupported(`another ${node.opType}`);
  return { scale: constant(graph, node.input[1]).data[0] ?? 1, zeroPoint: wholesOf(zero)[0] ?? 0 };
}

function valueNamed(values: Values, name: string | undefined): Tensor {
  const value = values.get(name ?? '');
  if (value === undefined) throw unsupported(`a use of "${name}" before it is made`);
  return value;
}

function attribute(node: OnnxNode, name: string) {
  return node.attribute.find((candidate) => candidate.name === name);
}

function keep<Kind extends Tensor>(compiler: Compiler, tensor: Kind): Kind {
  compiler.kept.push(tensor);
  return tensor;
}

/** The kernel in TensorFlow's order: [height, width, inputs, outputs], depthwise [height, width, channels, 1]. */
function kernelOf(compiler: Compiler, name: string | undefined, depthwise: boolean): Tensor4D {
  const { tf } = compiler;
  const { dims, data } = constant(compiler.graph, name);
  const [outputs = 0, inputs = 0, height = 0, width = 0] = dims;
  const order = depthwise ? [2, 3, 0, 1] : [2, 3, 1, 0];
  const kernel = tf.tidy(() => tf.transpose(tf.tensor4d(data, [outputs, inputs, height, width]), order));
  return keep(compiler, kernel as Tensor4D);
}

/**
 * Between which values an operation cuts off what it reads; undefined for one that does something else. Bytes cut off
 * what they cannot say. That they round as well is left out: with it a photo takes 1.6 times as long, and features still
 * differ from onnxruntime's by up to 0.20, for sums that lie between two bytes fall to either side; without it by up to
 * 0.61 (12 photos, least cosine 0.9989 and 0.9857).
 */
function limitsOf(graph: OnnxGraph, node: OnnxNode): { low: number; high: number } | undefined {
  if (node.opType === 'QuantizeLinear') {
    const { scale, zeroPoint } = gridOf(graph, node);
    return { low: -zeroPoint * scale, high: (255 - zeroPoint) * scale };
  }
  if (node.opType !== 'Clip') return undefined;
  const [low = 0, high = 0] = node.input.slice(1).map((name) => constant(graph, name).data[0]);
  return { low, high };
}

/** A ReLU6 that alone reads `output` can be done within the operation before it. */
function fusedClip(graph: OnnxGraph, output: string | undefined): OnnxNode | undefined {
  const readers = graph.node.filter((node) => output !== undefined && node.input.includes(output));
  const [clip] = readers;
  if (readers.length !== 1 || clip === undefined) return undefined;
  const limits = limitsOf(graph, clip);
  return limits?.low === 0 && Math.abs(limits.high - 6) < 1e-5 ? clip : undefined;
}

function compileConvolution(compiler: Compiler, node: OnnxNode): Step {
  const { tf, graph } = compiler;
  const [input, kernelName, biasName] = node.input;
  const group = attribute(node, 'group')?.i ?? 1;
  const dims = constant(graph, kernelName).dims;
  const depthwise = group > 1;
  if (depthwise && (dims[1] !== 1 || dims[0] !== group)) throw unsupported('a grouped convolution');
  const filter = kernelOf(compiler, kernelName, depthwise);
  const bias = keep(compiler, tf.tensor1d(constant(graph, biasName).data));
  const [top = 0, left = 0, bottom = 0, right = 0] = attribute(node, 'pads')?.ints ?? [];
  const [strideY = 1, strideX = 1] = attribute(node, 'strides')?.ints ?? [];
  const clip = fusedClip(graph, node.output[0]);
  const output = (clip ?? node).output[0] ?? '';
  const settings = {
    filter,
    bias,
    strides: [strideY, strideX] as [number, number],
    pad: [
      [0, 0],
      [top, bottom],
      [left, right],
      [0, 0],
    ] as ExplicitPadding,
    activation: clip ? ('relu6' as const) : ('linear' as const),
  };
  return (values) => {
    const x = valueNamed(values, input) as Tensor4D;
    // The depthwise operation takes explicit padding as the other does; only its declared type leaves it out.
    const result = depthwise
      ? tf.fused.depthwiseConv2d({ ...settings, pad: settings.pad as unknown as 'same', x })
      : tf.fused.conv2d({ ...settings, x });
    values.set(output, result);
  };
}

/** Compiles a node that is not a convolution. */
function compileSimple(compiler: Compiler, node: OnnxNode): Step {
  const { tf, graph } = compiler;
  const [first, second, third] = node.input;
  const isConstant = (name: string | undefined) => graph.initializer.some((tensor) => tensor.name === name);
  const simple = (compute: (x: Tensor, values: Values) => Tensor): Step => {
    return (values) => void values.set(node.output[0] ?? '', compute(valueNamed(values, first), values));
  };
  const scalarOr = (combine: (x: Tensor, y: Tensor) => Tensor): Step => {
    if (!isConstant(second)) return simple((x, values) => combine(x, valueNamed(values, second)));
    const { dims, data } = constant(graph, second);
    if (data.length !== 1) throw unsupported(`${node.opType} with a constant of shape [${dims}]`);
    const scalar = keep(compiler, tf.scalar(data[0] ?? 0));
    return simple((x) => combine(x, scalar));
  };
  switch (node.opType) {
    case 'Cast':
      return simple((x) => tf.cast(x, 'float32'));
    case 'Transpose':
      // To ONNX's channel order; here images stay as they come.
      if (attribute(node, 'perm')?.ints.join() !== '0,3,1,2') throw unsupported('another Transpose');
      return simple((x) => x);
    case 'Sub':
      return scalarOr((x, y) => tf.sub(x, y));
    case 'Mul':
      return scalarOr((x, y) => tf.mul(x, y));
    case 'Add':
      return scalarOr((x, y) => tf.add(x, y));
    case 'Div':
      return scalarOr((x, y) => tf.div(x, y));
    case 'DequantizeLinear': {
      if (graph.node.some(({ opType, output }) => opType === 'QuantizeLinear' && output[0] === first))
        return simple((x) => x);
      const { scale, zeroPoint } = gridOf(graph, node);
      return simple((x) => tf.mul(tf.sub(tf.cast(x, 'float32'), zeroPoint), scale));
    }
    case 'ReduceMax':
      return simple((x) => tf.max(x, attribute(node, 'axes')?.ints, true));
    case 'ReduceL2':
      return simple((x) => tf.norm(x, 'euclidean', attribute(node, 'axes')?.ints, true));
    case 'QuantizeLinear':
    case 'Clip': {
      const { low = 0, high = 0 } = limitsOf(graph, node) ?? {};
      return simple((x) => tf.clipByValue(x, low, high));
    }
    case 'GlobalAveragePool':
      return simple((x) => tf.mean(x, [1, 2], true));
    case 'Flatten':
      return simple((x) => tf.reshape(x, [x.shape[0] ?? 1, -1]));
    case 'Softmax':
      return simple((x) => tf.softmax(x));
    case 'Gemm': {
      const [weights, bias] = [constant(graph, second), constant(graph, third)];
      const [rows = 0, columns = 0] = weights.dims;
      const b = keep(compiler, tf.tensor2d(weights.data, [rows, columns]));
      const c = keep(compiler, tf.tensor1d(bias.data));
      return simple((x) => tf.add(tf.matMul(x as ReturnType<typeof tf.tensor2d>, b), c));
    }
    default:
      throw unsupported(`the operation ${node.opType}`);
  }
}

/** Images go out with their channels before rows and columns. */
function asInOnnx(tf: TensorFlowCore, value: Tensor): Tensor {
  return value.rank === 4 ? tf.transpose(value, [0, 3, 1, 2]) : value;
}

function compile(compiler: Compiler): Step[] {
  const fused = new Set<OnnxNode>();
  const steps: Step[] = [];
  for (const node of compiler.graph.node) {
    if (fused.has(node) || isConstantConversion(compiler.graph, node)) continue;
    if (node.opType !== 'Conv') {
      steps.push(compileSimple(compiler, node));
      continue;
    }
    steps.push(compileConvolution(compiler, node));
    const clip = fusedClip(compiler.graph, node.output[0]);
    if (clip !== undefined) fused.add(clip);
  }
  return steps;
}

/**
 * Opens the graph on TensorFlow.js: constants become tensors once, ReLU6 is fused into the convolutions.
 * It runs the operations that backbone.ts writes, and no others.
 *
 * @param wantedBackend default whichever works
 * @throws DandelionError `model-broken` naming the operation it cannot run, and what {@link loadTensorFlow} throws
 */
export async function openTensorFlow(
  graph: OnnxGraph,
  shape: GraphShape,
  wantedBackend?: TensorFlowBackend,
): Promise<EngineCore> {
  const { tf, backend } = await loadTensorFlow(wantedBackend);
  const compiler: Compiler = { tf, graph, kept: [] };
  const steps = compile(compiler);
  const { inputSize, classes, heatSide } = shape;
  const wanted: string[] = [graphNames.features];
  if (classes !== undefined) wanted.push(graphNames.probabilities);
  if (shape.familiarity) wanted.push(graphNames.familiarity);

  return {
    name: backend,
    // Measured: more photos at once are no faster a photo.
    batch: 1,
    async close() {
      tf.dispose(compiler.kept);
    },
    async runBatch(pixels, n, { heat = false }) {
      const names = heat && heatSide !== undefined ? [...wanted, graphNames.heat] : wanted;
      const outputs = tf.tidy(() => {
        const image = tf.tensor4d(Int32Array.from(pixels), [n, inputSize, inputSize, 3], 'int32');
        const values: Values = new Map([[graphNames.image, image]]);
        for (const step of steps) step(values);
        return names.map((name) => asInOnnx(tf, valueNamed(values, name)));
      });
      const arrays = outputs.map((output) => output.dataSync<'float32'>());
      tf.dispose(outputs);
      const { features = NONE, ...others } = Object.fromEntries(names.map((name, i) => [name, arrays[i]]));
      return { features, ...others };
    },
  };
}
