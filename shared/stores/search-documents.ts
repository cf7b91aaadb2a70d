import type { PredictionRecord } from '../events.ts';

/**
 * What is written to Elasticsearch. Fields are those of the Elastic Common Schema 9.5; what it has no word for stands
 * under `ml.*` (models and predictions), `dandelion.*` (a function's own counts) and `labels.*`.
 *
 * Streams are named `{type}-{dataset}-{namespace}`, as ECS `data_stream.*` names them.
 */
export type StreamType = 'logs' | 'metrics' | 'predictions';

/** One document on its way: a JSON text, and an id that stays the same however often it is sent. */
export interface SearchDocument {
  stream: string;
  id: string;
  json: string;
}

/** `logs-dandelion.predict-default` */
export function streamName(type: StreamType, dataset: string, namespace: string): string {
  return `${type}-${datasetName(dataset)}-${namespace}`;
}

/** The fields by which a document says where it belongs. */
export function streamFields(type: StreamType, dataset: string, namespace: string) {
  return { type, dataset: datasetName(dataset), namespace };
}

/** Names in streams may not have a `-`. */
function datasetName(dataset: string): string {
  return `dandelion.${dataset.replaceAll('-', '_')}`;
}

/**
 * A prediction as a document of the stream `predictions-dandelion.predict-{namespace}`. Its id is the record's, so that
 * a record delivered again is stored once.
 */
export function predictionDocument(record: PredictionRecord, namespace: string): SearchDocument {
  const { id, time, traceId, model, revision, outcome, code, latencyMs, input, embedding, clientHash } =
    record;
  const document = {
    '@timestamp': new Date(time).toISOString(),
    data_stream: streamFields('predictions', 'predict', namespace),
    event: {
      ...{ id, kind: 'event', action: 'prediction' },
      // As in log lines: what the caller did wrong is no failure of the function.
      outcome: outcome === 'failed' ? 'failure' : 'success',
      duration: Math.round(latencyMs * 1e6),
    },
    ...(code === null ? {} : { error: { code } }),
    ...(traceId === undefined ? {} : { trace: { id: traceId } }),
    service: { name: 'predict' },
    faas: { name: 'predict', ...(revision === null ? {} : { version: revision }) },
    ml: {
      model: { name: model.name, ...(model.version === null ? {} : { version: model.version }) },
      prediction: { outcome, weight: record.weight, latency_ms: latencyMs, ...answerFields(record) },
      input,
      ...(embedding === undefined ? {} : { embedding }),
    },
    ...(clientHash === undefined ? {} : { labels: { client_hash: clientHash } }),
  };
  return { stream: streamName('predictions', 'predict', namespace), id, json: JSON.stringify(document) };
}

/** Zeros in place of what was never answered would pull every average down. */
function answerFields({ label, scores }: Pick<PredictionRecord, 'label' | 'scores'>) {
  if (label === null) return {};
  const [score = 0, next = 0] = Object.values(scores).sort((one, other) => other - one);
  return { label, score, margin: score - next, scores };
}
