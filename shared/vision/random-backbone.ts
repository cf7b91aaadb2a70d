import { type Architecture, kernelShape, layersOf } from './architecture.ts';
import { backboneGraph } from './backbone.ts';
import { normal, type Random, seededRandom } from './random.ts';
import type { StateDict } from './torch.ts';

/** A narrow, short network of the same family: every kind of layer, 64-pixel photos, 48 features. */
export const SMALL_ARCHITECTURE: Architecture = {
  name: 'small',
  inputSize: 64,
  stemFilters: 8,
  stages: [
    { repeats: 2, kernel: 3, stride: 1, expansion: 1, filters: 8 },
    { repeats: 2, kernel: 5, stride: 2, expansion: 3, filters: 12 },
    { repeats: 2, kernel: 3, stride: 2, expansion: 3, filters: 16 },
  ],
  headFilters: 48,
};

/**
 * Weights that no one trained, for tests: drawn so that signals neither die out nor blow up
 * (He et al., 2015), with batch statistics away from 0 and 1 so that a mistake in folding shows.
 */
export function randomStateDict(architecture: Architecture, seed: number): StateDict {
  const random: Random = seededRandom(seed);
  const stateDict: StateDict = new Map();
  const put = (name: string, shape: number[], draw: () => number) => {
    const size = shape.reduce((product, length) => product * length, 1);
    stateDict.set(name, { shape, data: Float32Array.from({ length: size }, draw) });
  };
  for (const layer of layersOf(architecture)) {
    const shape = kernelShape(layer);
    const fanIn = shape.slice(1).reduce((product, length) => product * length, 1);
    const spread = Math.sqrt(2 / fanIn);
    put(`${layer.convolution}.weight`, shape, () => normal(random) * spread);
    put(`${layer.normalisation}.weight`, [layer.outputs], () => 0.8 + 0.4 * random());
    put(`${layer.normalisation}.bias`, [layer.outputs], () => 0.4 * random() - 0.1);
    put(`${layer.normalisation}.running_mean`, [layer.outputs], () => 0.2 * random() - 0.1);
    put(`${layer.normalisation}.running_var`, [layer.outputs], () => 0.7 + 0.6 * random());
  }
  return stateDict;
}

/** A backbone of weights that no one trained, as ONNX; the small network unless another is named. */
export function randomBackboneGraph(seed: number, architecture = SMALL_ARCHITECTURE): Uint8Array {
  return backboneGraph(randomStateDict(architecture, seed), { architecture });
}
