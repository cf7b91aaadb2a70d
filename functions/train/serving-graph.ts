import { DandelionError } from '../../shared/errors.ts';
import { readBackbone } from '../../shared/stores/backbones.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { CLASSICAL_EXTRACTOR } from '../../shared/vision/classical.ts';
import type { TrainedHead } from '../../shared/vision/head.ts';
import { servingGraph } from '../../shared/vision/serving-graph.ts';

/** A graph from pixels to probabilities, and the digest of the backbone in it. */
export interface ServingGraph {
  graph: Uint8Array;
  backboneDigest: string;
}

/**
 * The graph predict serves: the very backbone the features came from, with the head at its end. Classical
 * features have no graph; their head is served by itself.
 *
 * @throws DandelionError `backbone-unavailable` when the object store no longer has that backbone
 */
export async function buildServingGraph(
  objects: ObjectStore,
  extractor: string,
  head: TrainedHead,
): Promise<ServingGraph | undefined> {
  if (extractor === CLASSICAL_EXTRACTOR.id) return undefined;
  const backbone = await readBackbone(objects, extractor);
  if (backbone === undefined) {
    throw new DandelionError(
      'backbone-unavailable',
      `The object store has no backbone ${extractor}, which the features came from; run preprocess again.`,
    );
  }
  return { graph: servingGraph(backbone.graph, head), backboneDigest: backbone.digest };
}
