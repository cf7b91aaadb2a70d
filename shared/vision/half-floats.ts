import { elementType, floatsOf, halfTensor, onnxNode } from './onnx.ts';
import type { GraphPart } from './quantisation.ts';

/** Kernels: what a network consists of; biases and single numbers are next to nothing. */
const KERNEL_RANK = 4;

/**
 * Stores the kernels of a graph in 16-bit floats, half the size. Engines make 32-bit floats of them when they open it,
 * so a photo takes what it takes in `float32`. A kernel with a number that is too large for 16 bits stays as it is.
 */
export function storeInHalves({ nodes, constants }: GraphPart): GraphPart {
  const conversions: GraphPart = { nodes: [], constants: [] };
  for (const tensor of constants) {
    const halves = tensor.dims.length === KERNEL_RANK ? new Float16Array(floatsOf(tensor)) : undefined;
    if (halves === undefined || !halves.every(Number.isFinite)) {
      conversions.constants.push(tensor);
      continue;
    }
    const stored = `${tensor.name}.half`;
    conversions.constants.push(halfTensor(stored, tensor.dims, halves));
    conversions.nodes.push(onnxNode('Cast', [stored], tensor.name, { to: elementType.float }));
  }
  return { nodes: [...conversions.nodes, ...nodes], constants: conversions.constants };
}
