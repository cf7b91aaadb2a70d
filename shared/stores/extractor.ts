import type { ExtractorSettings } from '../config.ts';
import { CLASSICAL_EXTRACTOR } from '../vision/classical.ts';
import { type Engine, openClassicalEngine, openEngine } from '../vision/engine.ts';
import { type LoadBackboneOptions, loadBackbone } from './backbones.ts';
import type { ObjectStore } from './objects.ts';

/** What turns pixels into features, by name: features of different extractors never mix. */
export interface Extractor {
  id: string;
  dimension: number;
  engine: Engine;
}

/** BACKBONE_URI with this value asks for classical features. */
const NO_BACKBONE = 'none';

/**
 * The pretrained backbone, or fixed classical features when none can be had.
 *
 * @param settings the operator's, where they are set
 */
export async function openExtractor(
  objects: ObjectStore,
  { BACKBONE_URI: uri, BACKBONE_PRECISION: precision }: ExtractorSettings,
  options: Omit<LoadBackboneOptions, 'precision'>,
): Promise<Extractor> {
  const { log } = options;
  const backbone =
    uri === NO_BACKBONE ? undefined : await loadBackbone(objects, { uri }, { ...options, precision });
  if (backbone === undefined) {
    log.warn('NO BACKBONE: fixed classical features are used instead, accuracy will be lower');
    const engine = openClassicalEngine();
    return { ...CLASSICAL_EXTRACTOR, engine };
  }
  const engine = await openEngine(backbone.graph, {
    onFallback: (reason) => log.warn({ reason }, 'onnxruntime cannot be used; TensorFlow.js embeds, slower'),
  });
  log.info({ engine: engine.name, backbone: backbone.id }, 'backbone ready');
  return { id: backbone.id, dimension: engine.featureDimension, engine };
}
