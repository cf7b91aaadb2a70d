import { DandelionError } from '../errors.ts';
import { graphNames } from './graph.ts';
import {
  decodeOnnx,
  elementType,
  encodeOnnx,
  floatTensor,
  type OnnxGraph,
  onnxNode,
  shapeOf,
  tensorValue,
} from './onnx.ts';

/** A linear classifier on the features: `weights` row-major [dimension, classes], `bias` [classes]. */
export interface LinearHead {
  weights: Float32Array;
  bias: Float32Array;
  /** Mean direction of each class, row-major [classes, dimension] (see familiarity.ts). */
  directions?: Float32Array | undefined;
}

/**
 * Joins backbone and head into one graph: `probabilities` [N, classes]; `heat` [N, classes, side, side], whose mean over
 * the places is the logit (class-activation maps, Zhou et al. 2016, https://arxiv.org/abs/1512.04150); and, where the
 * head knows its classes' directions, `familiarity` [N, 1].
 *
 * @throws DandelionError `model-broken` when the backbone is no ONNX model or the head is for other features
 */
export function servingGraph(backboneOnnx: Uint8Array, head: LinearHead): Uint8Array {
  const model = decodeOnnx(backboneOnnx);
  const features = model.graph.output.find(({ name }) => name === graphNames.features);
  const dimension = features === undefined ? undefined : shapeOf(features)[1];
  const classes = head.bias.length;
  if (dimension === undefined || head.weights.length !== dimension * classes) {
    throw new DandelionError(
      'model-broken',
      `The head has ${head.weights.length / classes} weights a class, the backbone ${dimension} features; train again.`,
    );
  }
  model.graph.initializer.push(
    floatTensor('head.weight', [dimension, classes], head.weights),
    floatTensor('head.bias', [classes], head.bias),
  );
  model.graph.node.push(
    onnxNode('Gemm', [graphNames.features, 'head.weight', 'head.bias'], 'logits'),
    onnxNode('Softmax', ['logits'], graphNames.probabilities, { axis: 1 }),
  );
  model.graph.output.push(tensorValue(graphNames.probabilities, elementType.float, ['N', classes]));
  addHeat(model.graph, head, dimension);
  if (head.directions !== undefined) addFamiliarity(model.graph, head.directions, dimension);
  return encodeOnnx(model);
}

function addHeat({ initializer, node, output }: OnnxGraph, { weights, bias }: LinearHead, dimension: number) {
  const map = output.find(({ name }) => name === graphNames.map);
  const side = map === undefined ? undefined : shapeOf(map)[2];
  if (side === undefined) return;
  const classes = bias.length;
  const kernel = transposed(weights, dimension, classes);
  initializer.push(floatTensor('heat.kernel', [classes, dimension, 1, 1], kernel));
  const input = [graphNames.map, 'heat.kernel', 'head.bias'];
  node.push(onnxNode('Conv', input, graphNames.heat, { kernel_shape: [1, 1], strides: [1, 1] }));
  output.push(tensorValue(graphNames.heat, elementType.float, ['N', classes, side, side]));
}

function addFamiliarity(
  { initializer, node, output }: OnnxGraph,
  directions: Float32Array,
  dimension: number,
) {
  const classes = directions.length / dimension;
  const columns = transposed(directions, classes, dimension);
  initializer.push(
    floatTensor('familiarity.directions', [dimension, classes], columns),
    floatTensor('familiarity.none', [classes], new Float32Array(classes)),
    // Features that are all 0 are like none.
    floatTensor('familiarity.tiny', [], Float32Array.of(1e-12)),
  );
  node.push(
    onnxNode(
      'Gemm',
      [graphNames.features, 'familiarity.directions', 'familiarity.none'],
      'familiarity.products',
    ),
    onnxNode('ReduceMax', ['familiarity.products'], 'familiarity.nearest', { axes: [1], keepdims: 1 }),
    onnxNode('ReduceL2', [graphNames.features], 'familiarity.norm', { axes: [1], keepdims: 1 }),
    onnxNode('Add', ['familiarity.norm', 'familiarity.tiny'], 'familiarity.divisor'),
    onnxNode('Div', ['familiarity.nearest', 'familiarity.divisor'], graphNames.familiarity),
  );
  output.push(tensorValue(graphNames.familiarity, elementType.float, ['N', 1]));
}

function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(
    matrix,
    (_, place) => matrix[(place % rows) * columns + Math.floor(place / rows)] ?? 0,
  );
}
