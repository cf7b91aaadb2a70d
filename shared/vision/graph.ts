import { DandelionError } from '../errors.ts';

/** Names of the graph's input and outputs. */
export const graphNames = {
  /** uint8 [N, size, size, 3], RGB. */
  image: 'image',
  /** float32 [N, dimension]: the feature map averaged over its places. */
  features: 'features',
  /** float32 [N, dimension, size/32, size/32]: the last feature map. */
  map: 'map',
  /** float32 [N, classes], only with a head. */
  probabilities: 'probabilities',
} as const;

/** Lengths that a graph's inputs and outputs declare. */
export interface GraphShape {
  inputSize: number;
  featureDimension: number;
  classes: number | undefined;
}

/**
 * Checks what a graph declares of its inputs and outputs.
 *
 * @param lengths of the value of a name, undefined where it is free; undefined for a name that is not there
 * @throws DandelionError `model-broken`
 */
export function graphShape(lengths: (name: string) => (number | undefined)[] | undefined): GraphShape {
  const image = lengths(graphNames.image);
  const featureDimension = lengths(graphNames.features)?.[1];
  const inputSize = image?.[1];
  if (inputSize === undefined || image?.[2] !== inputSize || featureDimension === undefined) {
    throw new DandelionError(
      'model-broken',
      'The graph needs an input "image" [N, size, size, 3] and an output "features" [N, dimension]; store it again.',
    );
  }
  return { inputSize, featureDimension, classes: lengths(graphNames.probabilities)?.[1] };
}
