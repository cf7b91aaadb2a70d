import { z } from 'zod';

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

/** One prediction, as monitor hands it over; never the photo itself. */
export const predictionRecord = z.object({
  /** The same for every try to write it. */
  id: z.string().min(1).max(512),
  /** When predict answered. */
  time: z.iso.datetime({ offset: true }),
  /** Leads to the log line of the request. */
  traceId: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .optional(),
  model: z.object({ name: z.string(), version: z.string() }),
  /** What was answered; `unknown` below the threshold. */
  label: z.string(),
  /** Probability of each class. */
  scores: z.record(z.string(), z.number().min(0).max(1)),
  latencyMs: z.number().nonnegative(),
  /** Statistics of the photo by name: `sizeBytes`, `width`, `brightness` … */
  input: z.record(z.string().regex(/^[A-Za-z][A-Za-z0-9_]{0,63}$/), z.number()).default({}),
  embedding: z
    .object({ digest: z.string().optional(), sample: z.array(z.number()).max(4096).optional() })
    .optional(),
  /** A salted hash of who asked. */
  clientHash: z.string().optional(),
});
export type PredictionRecord = z.input<typeof predictionRecord>;

/**
 * A prediction as a document of the stream `predictions-dandelion.predict-{namespace}`.
 *
 * @throws ZodError for a record that does not fit
 */
export function predictionDocument(record: PredictionRecord, namespace: string): SearchDocument {
  const { id, time, traceId, model, label, scores, latencyMs, input, embedding, clientHash } =
    predictionRecord.parse(record);
  const sorted = Object.values(scores).sort((a, b) => b - a);
  const [score = 0, next = 0] = sorted;
  const document = {
    '@timestamp': new Date(time).toISOString(),
    data_stream: streamFields('predictions', 'predict', namespace),
    event: { id, kind: 'event', action: 'prediction', duration: Math.round(latencyMs * 1e6) },
    ...(traceId === undefined ? {} : { trace: { id: traceId } }),
    service: { name: 'predict' },
    faas: { name: 'predict' },
    ml: {
      model,
      prediction: { label, score, margin: score - next, scores, latency_ms: latencyMs },
      input,
      ...(embedding === undefined ? {} : { embedding }),
    },
    ...(clientHash === undefined ? {} : { labels: { client_hash: clientHash } }),
  };
  return { stream: streamName('predictions', 'predict', namespace), id, json: JSON.stringify(document) };
}
