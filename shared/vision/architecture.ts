/** A group of inverted residual blocks; only the first has the stride. */
export interface Stage {
  repeats: number;
  /** Width of the depthwise kernel in pixels. */
  kernel: number;
  stride: number;
  /** By how much the block widens its input before the depthwise convolution. */
  expansion: number;
  filters: number;
}

/** A network of the EfficientNet-Lite family. */
export interface Architecture {
  name: string;
  /** Width and height of the photo in pixels. */
  inputSize: number;
  stemFilters: number;
  stages: readonly Stage[];
  /** Length of the feature vector. */
  headFilters: number;
}

/**
 * EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, 2019, table 1) without squeeze-and-excitation and with ReLU6.
 * Source: tensorflow/tpu, models/official/efficientnet/lite.
 */
export const EFFICIENTNET_LITE0: Architecture = {
  name: 'efficientnet-lite0',
  inputSize: 224,
  stemFilters: 32,
  stages: [
    { repeats: 1, kernel: 3, stride: 1, expansion: 1, filters: 16 },
    { repeats: 2, kernel: 3, stride: 2, expansion: 6, filters: 24 },
    { repeats: 2, kernel: 5, stride: 2, expansion: 6, filters: 40 },
    { repeats: 3, kernel: 3, stride: 2, expansion: 6, filters: 80 },
    { repeats: 3, kernel: 5, stride: 1, expansion: 6, filters: 112 },
    { repeats: 4, kernel: 5, stride: 2, expansion: 6, filters: 192 },
    { repeats: 1, kernel: 3, stride: 1, expansion: 6, filters: 320 },
  ],
  headFilters: 1280,
};

/** One convolution with its batch normalisation. */
export interface ConvolutionLayer {
  /** Torch's name of the kernel, without `.weight`. */
  convolution: string;
  /** Torch's name of the batch normalisation. */
  normalisation: string;
  kernel: number;
  stride: number;
  /** One kernel a channel instead of one over all channels. */
  depthwise: boolean;
  inputs: number;
  outputs: number;
  /** ReLU6 follows. */
  activation: boolean;
  /** `start`: this layer's input is kept; `end`: what was kept is added to this layer's output. */
  residual?: 'start' | 'end' | undefined;
}

function blockLayers(index: number, stage: Stage, stride: number, inputs: number): ConvolutionLayer[] {
  const prefix = `_blocks.${index}.`;
  const middle = inputs * stage.expansion;
  const skips = stride === 1 && inputs === stage.filters;
  const expands = stage.expansion !== 1;
  const expand: ConvolutionLayer = {
    convolution: `${prefix}_expand_conv`,
    normalisation: `${prefix}_bn0`,
    ...{ kernel: 1, stride: 1, depthwise: false, inputs, outputs: middle, activation: true },
    residual: skips ? 'start' : undefined,
  };
  const depthwise: ConvolutionLayer = {
    convolution: `${prefix}_depthwise_conv`,
    normalisation: `${prefix}_bn1`,
    ...{ kernel: stage.kernel, stride, depthwise: true, inputs: middle, outputs: middle, activation: true },
    residual: skips && !expands ? 'start' : undefined,
  };
  const project: ConvolutionLayer = {
    convolution: `${prefix}_project_conv`,
    normalisation: `${prefix}_bn2`,
    ...{ kernel: 1, stride: 1, depthwise: false, inputs: middle, outputs: stage.filters, activation: false },
    residual: skips ? 'end' : undefined,
  };
  return expands ? [expand, depthwise, project] : [depthwise, project];
}

/** Every convolution of the network, in order, under the names of the torch state dict. */
export function layersOf(architecture: Architecture): ConvolutionLayer[] {
  const { stemFilters, stages, headFilters } = architecture;
  const blocks: ConvolutionLayer[] = [];
  let channels = stemFilters;
  let index = 0;
  for (const stage of stages) {
    for (let repeat = 0; repeat < stage.repeats; repeat += 1) {
      blocks.push(...blockLayers(index, stage, repeat === 0 ? stage.stride : 1, channels));
      channels = stage.filters;
      index += 1;
    }
  }
  const stem: ConvolutionLayer = {
    convolution: '_conv_stem',
    normalisation: '_bn0',
    ...{ kernel: 3, stride: 2, depthwise: false, inputs: 3, outputs: stemFilters, activation: true },
  };
  const head: ConvolutionLayer = {
    convolution: '_conv_head',
    normalisation: '_bn1',
    ...{ kernel: 1, stride: 1, depthwise: false, inputs: channels, outputs: headFilters, activation: true },
  };
  return [stem, ...blocks, head];
}

/** Shape of a layer's kernel, ONNX's and torch's order: [outputs, inputs a group, height, width]. */
export function kernelShape(layer: ConvolutionLayer): number[] {
  return [layer.outputs, layer.depthwise ? 1 : layer.inputs, layer.kernel, layer.kernel];
}
