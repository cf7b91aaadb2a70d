import type { JobTools } from '../../shared/function/compute-worker.ts';
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
  tools: JobTools,
): Promise<Extractor> {
  const backbone = backboneUri === NO_BACKBONE ? undefined : await fetchBackbone(objects, backboneUri, tools);
  if (backbone === undefined) {
    tools.log.warn('NO BACKBONE: fixed classical features are used instead, accuracy will be lower');
    const engine = openClassicalEngine();
    return { ...CLASSICAL_EXTRACTOR, engine };
  }
  const engine = await openEngine(backbone.graph, {
    onFallback: (reason) =>
      tools.log.warn({ reason }, 'onnxruntime cannot be used; TensorFlow.js embeds, slower'),
  });
  tools.log.info({ engine: engine.name, backbone: backbone.id }, 'backbone ready');
  return { id: backbone.id, dimension: engine.featureDimension, engine };
}

function fetchBackbone(objects: ObjectStore, uri: string | undefined, tools: JobTools) {
  return loadBackbone(
    objects,
    { uri },
    {
      log: tools.log,
      signal: tools.signal,
      onProgress: (done, total) => tools.progress(done, total, 'fetching the backbone'),
    },
  );
}
