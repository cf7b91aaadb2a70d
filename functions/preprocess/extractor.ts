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

/** BACKBONE_URI with this value asks for classical features. */
const NO_BACKBONE = 'none';

/** The pretrained backbone, or fixed classical features when none can be had. */
export async function openExtractor(
  objects: ObjectStore,
  backboneUri: string | undefined,
  context: FunctionContext,
): Promise<Extractor> {
  const backbone =
    backboneUri === NO_BACKBONE ? undefined : await fetchBackbone(objects, backboneUri, context);
  if (backbone === undefined) {
    context.log.warn('NO BACKBONE: fixed classical features are used instead, accuracy will be lower');
    const engine = openClassicalEngine();
    return { ...CLASSICAL_EXTRACTOR, engine };
  }
  const engine = await openEngine(backbone.graph, {
    onFallback: (reason) =>
      context.log.warn({ reason }, 'onnxruntime cannot be used; TensorFlow.js embeds, slower'),
  });
  context.log.info({ engine: engine.name, backbone: backbone.id }, 'backbone ready');
  return { id: backbone.id, dimension: engine.featureDimension, engine };
}

function fetchBackbone(objects: ObjectStore, uri: string | undefined, context: FunctionContext) {
  return loadBackbone(
    objects,
    { uri },
    {
      log: context.log,
      signal: context.signal,
      onProgress: (done, total) => context.progress(done, total, 'fetching the backbone'),
    },
  );
}
