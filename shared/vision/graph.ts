import { DandelionError } from '../errors.ts';

/** Names of the graph's input and outputs. */
export const graphNames = {
  /** uint8 [N, size, size, 3], RGB. */
  image: 'image',
  /** float32 [N, dimension]: the last feature map averaged over its places. */
  features: 'features',
  /** float32 [N, dimension, size/32, size/32]: the last feature map. */
  map: 'map',
  /** float32 [N, classes], only with a head. */
  probabilities: 'probabilities',
  /** float32 [N, 1]: cosine with the nearest class (see familiarity.ts), only where the head knows its classes' directions. */
  familiarity: 'familiarity',
  /** float32 [N, classes, side, side], only with a head: what each place of the map adds to each class. */
  heat: 'heat',
} as const;

/** Lengths that a graph's inputs and outputs declare. */
export interface GraphShape {
  inputSize: number;
  featureDimension: number;
  classes: number | undefined;
  /** Whether it tells how familiar a photo is. */
  familiarity: boolean;
  /** Places along a side of the heat; undefined without it. */
  heatSide: number | undefined;
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
  return {
    inputSize,
    featureDimension,
    classes: lengths(graphNames.probabilities)?.[1],
    familiarity: lengths(graphNames.familiarity) !== undefined,
    heatSide: lengths(graphNames.heat)?.[2],
  };
}
