import type { Precision } from '../config.ts';
import { DandelionError } from '../errors.ts';
import {
  type Architecture,
  type ConvolutionLayer,
  EFFICIENTNET_LITE0,
  kernelShape,
  layersOf,
} from './architecture.ts';
import { graphNames } from './graph.ts';
import { storeInHalves } from './half-floats.ts';
import {
  elementType,
  encodeOnnx,
  floatTensor,
  onnxModel,
  onnxNode,
  tensorValue,
  wholeTensor,
} from './onnx.ts';
import {
  addSpreads,
  type GraphPart,
  type Quantisation,
  quantiseWeights,
  rangeOf,
  roundToBytes,
  type Spread,
} from './quantisation.ts';
import type { FloatTensor, StateDict } from './torch.ts';

/** Added to the variance; the family's value, not torch's default of 1e-5. */
const BATCH_NORM_EPSILON = 1e-3;

/** Pixels (0 to 255) become (pixel - 127) / 128. */
const PIXEL_MEAN = 127;
const PIXEL_SCALE = 1 / 128;

function tensorOf(stateDict: StateDict, name: string, shape: number[]): FloatTensor {
  const tensor = stateDict.get(name);
  if (tensor === undefined || tensor.shape.join() !== shape.join()) {
    const found = tensor === undefined ? 'missing' : `[${tensor.shape}]`;
    throw new DandelionError(
      'backbone-unavailable',
      `The weights are of another network: ${name} should be [${shape}], it is ${found}.`,
    );
  }
  return tensor;
}

/**
 * Folds a layer's batch normalisation into its kernel and a bias: the same result with one operation less
 * (Jacob et al., 2018, section 3.2).
 */
function foldBatchNorm(
  stateDict: StateDict,
  layer: ConvolutionLayer,
): { kernel: Float32Array; bias: Float32Array; spread: Spread } {
  const source = tensorOf(stateDict, `${layer.convolution}.weight`, kernelShape(layer)).data;
  const statistic = (name: string) =>
    tensorOf(stateDict, `${layer.normalisation}.${name}`, [layer.outputs]).data;
  const [gamma, beta] = [statistic('weight'), statistic('bias')];
  const [mean, variance] = [statistic('running_mean'), statistic('running_var')];

  const scale = Float64Array.from(variance, (value, output) => {
    return (gamma[output] ?? 0) / Math.sqrt(value + BATCH_NORM_EPSILON);
  });
  const perOutput = source.length / layer.outputs;
  return {
    kernel: source.map((value, i) => value * (scale[Math.floor(i / perOutput)] ?? 0)),
    bias: beta.map((value, output) => value - (mean[output] ?? 0) * (scale[output] ?? 0)),
    // Normalised, the channels have the mean beta and the standard deviation gamma.
    spread: { mean: Float64Array.from(beta), variance: Float64Array.from(gamma, (value) => value * value) },
  };
}

/** TensorFlow's SAME padding, which the weights were trained with: an odd pixel goes to the right and bottom. */
function samePads(size: number, kernel: number, stride: number): number[] {
  const total = Math.max(0, (Math.ceil(size / stride) - 1) * stride + kernel - size);
  const before = Math.floor(total / 2);
  return [before, before, total - before, total - before];
}

/** A value of the graph while it is written; its grid where it is kept in bytes. */
interface Flow {
  name: string;
  spread: Spread;
  grid: Quantisation | undefined;
}

/** The photo, normalised, in ONNX's channel order. Its bytes are already what normalised bytes would be. */
function photoFlow(part: GraphPart, precision: Precision): Flow {
  const { nodes, constants } = part;
  const flow = { name: 'normalised', spread: { mean: new Float64Array(3), variance: new Float64Array(3) } };
  constants.push(floatTensor('pixel_scale', [], Float32Array.of(PIXEL_SCALE)));
  if (precision === 'int8') {
    constants.push(wholeTensor('pixel_zero', [], Uint8Array.of(PIXEL_MEAN)));
    nodes.push(
      onnxNode('Transpose', [graphNames.image], 'channels', { perm: [0, 3, 1, 2] }),
      onnxNode('DequantizeLinear', ['channels', 'pixel_scale', 'pixel_zero'], flow.name),
    );
    return { ...flow, grid: { scale: PIXEL_SCALE, zeroPoint: PIXEL_MEAN } };
  }
  constants.push(
    floatTensor('pixel_mean', [], Float32Array.of(PIXEL_MEAN)),
    floatTensor('relu_low', [], Float32Array.of(0)),
    floatTensor('relu_high', [], Float32Array.of(6)),
  );
  nodes.push(
    onnxNode('Cast', [graphNames.image], 'pixels', { to: elementType.float }),
    onnxNode('Transpose', ['pixels'], 'channels', { perm: [0, 3, 1, 2] }),
    onnxNode('Sub', ['channels', 'pixel_mean'], 'centred'),
    onnxNode('Mul', ['centred', 'pixel_scale'], flow.name),
  );
  return { ...flow, grid: undefined };
}

/** Writes a convolution with its ReLU6, in the precision of what it reads. */
function writeLayer(
  part: GraphPart,
  layer: ConvolutionLayer,
  stateDict: StateDict,
  { input, size, output }: { input: Flow; size: number; output: string },
): Flow {
  const { nodes, constants } = part;
  const { kernel, bias, spread } = foldBatchNorm(stateDict, layer);
  const id = layer.convolution;
  const shape = kernelShape(layer);
  const convolution = onnxNode('Conv', [input.name, `${id}.weight`, `${id}.bias`], id, {
    kernel_shape: [layer.kernel, layer.kernel],
    strides: [layer.stride, layer.stride],
    pads: samePads(size, layer.kernel, layer.stride),
    group: layer.depthwise ? layer.inputs : 1,
  });
  if (input.grid !== undefined) {
    const weights = quantiseWeights(id, { kernel, shape, bias }, input.grid);
    nodes.push(...weights.nodes, convolution);
    constants.push(...weights.constants);
    // Whose bytes end at 0 and 6 is cut there as ReLU6 would.
    return roundFlow(part, { from: id, to: output, spread }, layer.activation);
  }
  constants.push(
    floatTensor(`${id}.weight`, shape, kernel),
    floatTensor(`${id}.bias`, [layer.outputs], bias),
  );
  nodes.push(convolution);
  if (!layer.activation) return { name: id, spread, grid: undefined };
  nodes.push(onnxNode('Clip', [id, 'relu_low', 'relu_high'], output));
  return { name: output, spread, grid: undefined };
}

/** Adds what was kept before the block to what comes out of it. */
function writeSum(part: GraphPart, flow: Flow, kept: Flow): Flow {
  const name = `${flow.name}.sum`;
  const spread = addSpreads(flow.spread, kept.spread);
  part.nodes.push(onnxNode('Add', [flow.name, kept.name], name));
  if (flow.grid === undefined) return { name, spread, grid: undefined };
  return roundFlow(part, { from: name, to: `${name}.rounded`, spread }, false);
}

function roundFlow(
  part: GraphPart,
  { from, to, spread }: { from: string; to: string; spread: Spread },
  relu6: boolean,
): Flow {
  const grid = rangeOf(spread, relu6);
  const { nodes, constants } = roundToBytes(from, to, grid);
  part.nodes.push(...nodes);
  part.constants.push(...constants);
  return { name: to, spread, grid };
}

/**
 * Turns torch weights into the ONNX graph that all engines read: uint8 photos in, `features` and `map` out
 * (shapes at {@link graphNames}), batch normalisation folded. The same weights always give the same bytes.
 *
 * The features are the plain mean of the last feature map over its places. Generalised means (Radenović, Tolias and
 * Chum, 2018) with exponents 2 and 3 and the maximum were tried: a linear head on 300 photos of dandelions and grass
 * and their augmented views is right for 97.7 % with the mean, 97.4, 97.1 and 97.1 % with these; over 13 kinds of
 * spoilt photos for 94.0 %, and 94.0, 93.9 and 93.6 % (5-fold cross-validation, 6 seeds). The standard deviation over the
 * places added to the mean finds small flowers in wide views more often (a photo as a small disc on one of grass, 1200 of
 * them: +1.9 points, 95 % interval 1.1 to 2.7) but is no gain on photos as they are: 97.90 % against 98.30 (10 seeds).
 *
 * Nor are its larger sisters, in floats and on the same pixels (5 seeds, in pairs): Lite1 -2.3 points (-4.1 to -0.5), Lite2
 * -1.1 (-2.5 to 0.2), Lite0 and Lite1 side by side -0.9 (-2.0 to 0.1), Lite0 and Lite2 -0.7 (-1.8 to 0.2); at 240 and 260
 * pixels, for which they were made, 96.0 and 96.4 % against 97.9. Training the last convolution along with the head (5 epochs
 * of Adam) gives +0.3 (-0.2 to 1.1; 4 seeds) for minutes of work and a network of its own for each model.
 *
 * @param options.precision how the network computes: `float32`; `float16`, the same with weights stored at half the size;
 *   or `int8` with bytes for weights and for what flows between the layers (see quantisation.ts)
 * @throws DandelionError `backbone-unavailable` when the weights are of another network
 */
export function backboneGraph(
  stateDict: StateDict,
  {
    architecture = EFFICIENTNET_LITE0,
    precision = 'float32',
  }: { architecture?: Architecture; precision?: Precision } = {},
): Uint8Array {
  const { name, inputSize, headFilters } = architecture;
  const part: GraphPart = { nodes: [], constants: [] };
  let flow = photoFlow(part, precision);
  let kept = flow;
  let size = inputSize;
  const layers = layersOf(architecture);
  for (const layer of layers) {
    if (layer.residual === 'start') kept = flow;
    const output = layer === layers.at(-1) ? graphNames.map : `${layer.convolution}.out`;
    flow = writeLayer(part, layer, stateDict, { input: flow, size, output });
    size = Math.ceil(size / layer.stride);
    if (layer.residual === 'end') flow = writeSum(part, flow, kept);
  }
  part.nodes.push(
    onnxNode('GlobalAveragePool', [graphNames.map], 'pooled'),
    onnxNode('Flatten', ['pooled'], graphNames.features, { axis: 1 }),
  );
  const { nodes, constants } = precision === 'float16' ? storeInHalves(part) : part;
  return encodeOnnx(
    onnxModel({
      name,
      node: nodes,
      initializer: constants,
      input: [tensorValue(graphNames.image, elementType.uint8, ['N', inputSize, inputSize, 3])],
      output: [
        tensorValue(graphNames.features, elementType.float, ['N', headFilters]),
        tensorValue(graphNames.map, elementType.float, ['N', headFilters, size, size]),
      ],
    }),
  );
}
