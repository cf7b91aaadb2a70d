import { floatTensor, type OnnxNode, type OnnxTensor, onnxNode, wholeTensor } from './onnx.ts';

/** Numbers q of one byte stand for `(q - zeroPoint) * scale`. */
export interface Quantisation {
  scale: number;
  zeroPoint: number;
}

/** How a layer's output is spread, a channel each, over the photos its network was trained on. */
export interface Spread {
  mean: Float64Array;
  variance: Float64Array;
}

/** What a part of a graph is made of. */
export interface GraphPart {
  nodes: OnnxNode[];
  constants: OnnxTensor[];
}

/**
 * Within this many standard deviations of its mean a channel is taken to stay, as in data-free quantisation (Nagel et
 * al., 2019, https://arxiv.org/abs/1906.04721, section 5): the batch normalisation knows both, so no photo is needed.
 */
const DEVIATIONS = 6;

/**
 * Weights go up to 63 instead of 127: processors without dot products of bytes (VNNI) add two products of a byte and a
 * signed byte in 16 bits, which 2 * 255 * 64 just fits; so all machines give the same sums.
 * (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range")
 */
const LARGEST_WEIGHT = 63;

/** Biases are 32-bit; half of their range is left to the sum they are added to. */
const LARGEST_BIAS = 2 ** 30;

/** What one byte must be able to say of channels of this spread; after a ReLU6 nothing is outside 0 to 6. */
export function rangeOf({ mean, variance }: Spread, relu6: boolean): Quantisation {
  let [low, high] = [0, 0];
  for (const [channel, centre] of mean.entries()) {
    const reach = DEVIATIONS * Math.sqrt(variance[channel] ?? 0);
    low = Math.min(low, centre - reach);
    high = Math.max(high, centre + reach);
  }
  if (relu6) [low, high] = [0, Math.min(6, high)];
  const scale = Math.fround((high - low || 1) / 255);
  return { scale, zeroPoint: Math.round((0 - low) / scale) };
}

/** Of a sum of two that do not depend on one another. */
export function addSpreads(a: Spread, b: Spread): Spread {
  const sum = (x: Float64Array, y: Float64Array) => x.map((value, channel) => value + (y[channel] ?? 0));
  return { mean: sum(a.mean, b.mean), variance: sum(a.variance, b.variance) };
}

/**
 * A convolution's kernel as signed bytes with a scale of its own for each output channel (Jacob et al., 2018,
 * https://arxiv.org/abs/1712.05877) and its bias in 32 bits, each with the node that makes floats of it, as onnxruntime
 * wants them to compute in whole numbers.
 *
 * @param kernel row-major [outputs, ...]
 * @param input of what the convolution reads
 */
export function quantiseWeights(
  id: string,
  { kernel, shape, bias }: { kernel: Float32Array; shape: number[]; bias: Float32Array },
  input: Quantisation,
): GraphPart {
  const outputs = bias.length;
  const perOutput = kernel.length / outputs;
  const scales = Float32Array.from(bias, (offset, output) => {
    const weights = kernel.subarray(output * perOutput, (output + 1) * perOutput);
    const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
    // A channel with next to no weights must still be able to say its bias.
    return Math.max(largest / LARGEST_WEIGHT, Math.abs(offset) / (LARGEST_BIAS * input.scale)) || 1;
  });
  const weights = Int8Array.from(kernel, (weight, i) =>
    Math.round(weight / (scales[Math.floor(i / perOutput)] ?? 1)),
  );
  const biasScales = scales.map((scale) => scale * input.scale);
  const biases = Int32Array.from(bias, (offset, output) => Math.round(offset / (biasScales[output] ?? 1)));
  return {
    nodes: [
      onnxNode('DequantizeLinear', [`${id}.weight.bytes`, `${id}.weight.scale`], `${id}.weight`, { axis: 0 }),
      onnxNode('DequantizeLinear', [`${id}.bias.whole`, `${id}.bias.scale`], `${id}.bias`, { axis: 0 }),
    ],
    constants: [
      wholeTensor(`${id}.weight.bytes`, shape, weights),
      floatTensor(`${id}.weight.scale`, [outputs], scales),
      wholeTensor(`${id}.bias.whole`, [outputs], biases),
      floatTensor(`${id}.bias.scale`, [outputs], biasScales),
    ],
  };
}

/** Rounds a value to bytes and makes floats of them again; onnxruntime draws both into the operations around them. */
export function roundToBytes(from: string, to: string, { scale, zeroPoint }: Quantisation): GraphPart {
  const grid = [`${to}.scale`, `${to}.zero`];
  return {
    nodes: [
      onnxNode('QuantizeLinear', [from, ...grid], `${to}.bytes`),
      onnxNode('DequantizeLinear', [`${to}.bytes`, ...grid], to),
    ],
    constants: [
      floatTensor(`${to}.scale`, [], Float32Array.of(scale)),
      wholeTensor(`${to}.zero`, [], Uint8Array.of(zeroPoint)),
    ],
  };
}
