import type { FunctionContext } from '../../shared/function/types.ts';
import { loadBackbone } from '../../shared/stores/backbones.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { CLASSICAL_EXTRACTOR } from '../../shared/vision/classical.ts';
import { type Engine, openClassicalEngine, openEngine } from '../../shared/vision/engine.ts';

/** What turns pixels into features, by name: features of different extractors never mix. */
export interface Extractor {
  id: string;
  dimension: number;
  engine: Engine;
}

/** The pretrained backbone, or fixed classical features when none can be had. */
export async function openExtractor(
  objects: ObjectStore,
  backboneUri: string | undefined,
  context: FunctionContext,
): Promise<Extractor> {
  const backbone = await loadBackbone(
    objects,
    { uri: backboneUri },
    {
      log: context.log,
      signal: context.signal,
      onProgress: (done, total) => context.progress(done, total, 'fetching the backbone'),
    },
  );
  if (backbone === undefined) {
    context.log.warn('NO BACKBONE: fixed classical features are used instead, accuracy will be lower');
    const engine = await openClassicalEngine();
    return { ...CLASSICAL_EXTRACTOR, engine };
  }
  const engine = await openEngine(backbone.graph);
  context.log.info({ engine: engine.name, backbone: backbone.id }, 'backbone ready');
  return { id: backbone.id, dimension: engine.featureDimension, engine };
}
