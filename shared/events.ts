import { createHash } from 'node:crypto';
import type { CloudEventV1 } from 'cloudevents';
import { z } from 'zod';
import { modelName } from './config.ts';
import { DandelionError } from './errors.ts';
import { schemaFaults } from './schema-faults.ts';

/** A CloudEvent 1.0 as a plain object (attributes at the top level, `data` already parsed). */
export type Event<Data = unknown> = CloudEventV1<Data>;

/** Class names become folders, JSON keys and Kibana terms: letters, digits, space and `_.-`, 63 at most. */
export const classLabel = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$/,
    'a label starts with a letter or digit, then letters, digits, space, "_", "." or "-", 63 characters at most',
  );

/** What predict answers for a photo of none of the classes. */
export const UNKNOWN = 'unknown';

/** The label of a photo to learn from: a class of predict's word for none of the classes would be taken for none. */
export const trainingLabel = classLabel.refine(
  (label) => label !== UNKNOWN,
  `"${UNKNOWN}" is what predict answers for none of the classes; rename the class, for instance to "other"`,
);

const classCounts = z.record(classLabel, z.number().int().nonnegative());
const rejection = z.object({ source: z.string(), reason: z.string() });
export type Rejection = z.infer<typeof rejection>;

/** Model versions: `v` and ten hex digits of the train event's digest; DNS-safe. */
export const modelVersion = z.string().regex(/^v[0-9a-f]{10}$/);
const modelReference = z.object({ name: modelName, version: modelVersion });

/** Where photos come from. `uri` is an `http(s)://` or `file://` address, or `s3://` in the object store's own bucket. */
export const imageSource = z.object({
  kind: z.enum(['manifest', 'folder', 'archive']),
  uri: z.url({ protocol: /^(https?|file|s3)$/ }),
});
export type ImageSource = z.infer<typeof imageSource>;

const datasetSummary = z.object({
  version: z.string(),
  images: z.number().int(),
  classes: classCounts,
  splits: z.object({ train: z.number().int(), validation: z.number().int(), test: z.number().int() }),
});

const perClass = z.record(
  classLabel,
  z.object({ precision: z.number(), recall: z.number(), f1: z.number(), support: z.number().int() }),
);

/** Quality of a classifier on one split; rates are 0 to 1. */
export const metricsSummary = z.object({
  images: z.number().int(),
  accuracy: z.number(),
  /** 95 % interval of the accuracy. */
  interval: z.tuple([z.number(), z.number()]),
  rocAuc: z.number(),
  /** Expected calibration error. */
  ece: z.number(),
  perClass,
});
export type MetricsSummary = z.infer<typeof metricsSummary>;

/** One check of the promotion gate. */
export const gateCheck = z.object({
  check: z.string(),
  passed: z.boolean(),
  value: z.number(),
  limit: z.number(),
  detail: z.string(),
});
export type GateCheck = z.infer<typeof gateCheck>;

const verdict = z.object({
  model: modelReference,
  dataset: datasetSummary,
  checks: z.array(gateCheck),
  /** On the test split. */
  metrics: metricsSummary,
  champion: z.object({ version: modelVersion, metrics: metricsSummary }).nullable(),
});

/**
 * What predict tells of one photo, or of a request that ended before it had one; never the photo itself.
 * `outcome`: `refused` is the caller's fault (4xx), `failed` is ours (5xx).
 */
export const predictionRecord = z.object({
  /**
   * 2 since records carry a sketch, 3 since they carry it as bytes; absent in the first ones. A later one only adds: what
   * a reader does not know it leaves out, so that both releases work side by side.
   */
  schemaVersion: z.number().int().positive().optional(),
  id: z.string().min(1).max(200),
  time: z.iso.datetime({ offset: true }),
  traceId: z.string().optional(),
  /** `version` is null when no model was there to answer. */
  model: z.object({ name: modelName, version: modelVersion.nullable() }),
  /** Knative revision that answered. */
  revision: z.string().nullable(),
  outcome: z.enum(['answered', 'refused', 'failed']),
  /** Of the problem; null for an answer. */
  code: z.string().nullable(),
  label: classLabel.nullable(),
  /** Probabilities of the classes, the 20 likeliest at most. */
  scores: z.record(classLabel, z.number().min(0).max(1)),
  latencyMs: z.number().nonnegative(),
  /** How many predictions this record stands for: 1 / sampling rate. */
  weight: z.number().min(1),
  /** Statistics of the decoded photo by name: `sizeBytes`, `width`, `brightness` … */
  input: z.record(z.string().regex(/^[A-Za-z][A-Za-z0-9_]{0,63}$/), z.number()),
  embedding: z.object({ digest: z.string() }).optional(),
  /** A few numbers that stand for the photo's features; comparable with others of the same `id`. */
  sketch: z.object({ id: z.string(), values: z.array(z.number()).min(1).max(64) }).optional(),
  /** The same as base64 of little-endian single-precision numbers, which takes a tenth of the time to write and read. */
  sketchBytes: z.object({ id: z.string(), float32: z.base64().min(8).max(344) }).optional(),
  /** Keyed hash of who asked. */
  clientHash: z.string().optional(),
});
export type PredictionRecord = z.infer<typeof predictionRecord>;

const share = z.number().int().min(1).max(100);

/** How a new version is let near the traffic; what an event leaves out, the settings of deploy say. */
export const canaryOverrides = z.strictObject({
  /** Percent of the traffic, rising, one stage each. */
  shares: z
    .array(share)
    .min(1)
    .refine((shares) => shares.every((each, index) => index === 0 || each > (shares[index - 1] ?? 0)), {
      error: 'shares rise from stage to stage',
    })
    .optional(),
  /** Answers that a stage wants of each version. */
  minSamples: z.number().int().min(1).optional(),
  /** By how much the rate of errors may lie above the one of the version that served before; 0 to 1. */
  maxErrorRate: z.number().min(0).max(1).optional(),
  /** Median latency over the one of the version that served before. */
  maxLatencyRatio: z.number().min(1).optional(),
  stageTimeoutMs: z.number().int().min(1000).optional(),
});

const driftFinding = z.object({
  kind: z.enum(['input', 'embedding', 'prediction', 'confidence', 'performance']),
  feature: z.string(),
  test: z.enum(['kolmogorov-smirnov', 'domain-classifier', 'chi-squared', 'fisher-exact']),
  pValue: z.number().min(0).max(1),
  effect: z.number(),
  leastEffect: z.number(),
  drifted: z.boolean(),
  psi: z.number().optional(),
  /** Medians, shares of labels, or of right answers. */
  reference: z.union([z.number(), z.record(z.string(), z.number())]),
  window: z.union([z.number(), z.record(z.string(), z.number())]),
});
/** What who asks for a training wants of later steps: every result on the way hands it on. */
const wishes = {
  /** `false`: the champion stays, untouched, when it learnt from these very photos. */
  force: z.boolean().optional(),
  canary: canaryOverrides.optional(),
};

/** Data schema of every event type; the key is the CloudEvent `type`. */
export const eventSchemas = {
  'dev.dandelion.retrain.requested.v1': z.object({
    model: modelName,
    source: imageSource,
    /** Seeds split, training and resampling: same seed, same dataset, same model. */
    seed: z.number().int().nonnegative().default(1),
    reason: z.string().optional(),
    ...wishes,
  }),
  /** Photos appear in a folder of the object store, one after the other; ingest waits for the last of the burst. */
  'dev.dandelion.photos.added.v1': z.object({ model: modelName, source: imageSource, burst: z.string() }),
  'dev.dandelion.images.ingested.v1': z.object({
    model: modelName,
    ingestion: z.string(),
    seed: z.number().int(),
    images: z.number().int(),
    classes: classCounts,
    /** How many of `images` were in the object store already. */
    reused: z.number().int(),
    duplicates: z.object({ exact: z.number().int(), near: z.number().int() }),
    rejectedCount: z.number().int(),
    /** The first 500; all of them are in the table `rejections`. */
    rejected: z.array(rejection),
    ...wishes,
  }),
  'dev.dandelion.features.stored.v1': z.object({
    model: modelName,
    ingestion: z.string(),
    seed: z.number().int(),
    dataset: datasetSummary,
    /** What made the features: numbers a photo, and the side in pixels of the square it looks at. */
    extractor: z.object({ id: z.string(), dimension: z.number().int(), inputSize: z.number().int() }),
    rejectedCount: z.number().int(),
    ...wishes,
  }),
  /** Nothing was trained: `model` serves, and knows these photos. */
  'dev.dandelion.training.skipped.v1': z.object({
    model: modelReference,
    dataset: datasetSummary,
    reason: z.string(),
  }),
  'dev.dandelion.model.trained.v1': z.object({
    model: modelReference,
    dataset: datasetSummary,
    runId: z.string(),
    /** Page of the tracked run. */
    runUrl: z.string().optional(),
    trainingMs: z.number(),
    engine: z.string(),
    /** On the validation split. */
    metrics: metricsSummary,
    canary: wishes.canary,
  }),
  'dev.dandelion.model.approved.v1': verdict.extend({ canary: wishes.canary }),
  'dev.dandelion.model.rejected.v1': verdict,
  'dev.dandelion.model.deployed.v1': z.object({
    model: modelReference,
    previous: modelVersion.nullable(),
    metrics: metricsSummary,
  }),
  /** The prediction log, a batch a notice. */
  'dev.dandelion.predictions.made.v1': z.object({ records: z.array(predictionRecord).min(1).max(1000) }),
  /** What someone said about an answer; nobody has reviewed it yet. */
  'dev.dandelion.feedback.given.v1': z.object({
    feedback: z.string(),
    prediction: z.string(),
    model: modelReference,
    predicted: classLabel,
    /** Null: none of the model's classes. */
    label: classLabel.nullable(),
    /** Digest of the photo, where it was given to be kept. */
    photo: z.string().nullable(),
  }),
  /** `model` was taken back, `previous` serves again (null: there was none). */
  'dev.dandelion.model.rolledback.v1': z.object({
    model: modelReference,
    previous: modelVersion.nullable(),
    /** Where the deployment was; `requested` when someone asked for it. */
    phase: z.string(),
    reason: z.string(),
    /** The figures that the decision rests on. */
    evidence: z.record(z.string(), z.unknown()),
  }),
  'dev.dandelion.rollback.requested.v1': z.object({
    model: modelName,
    /** Unset: the version that served before the present one. */
    version: modelVersion.optional(),
    reason: z.string().max(500).default('requested'),
  }),
  'dev.dandelion.deployment.decided.v1': z.object({
    model: modelReference,
    phase: z.string(),
    decision: z.string(),
    reason: z.string(),
    evidence: z.record(z.string(), z.unknown()),
  }),
  /** Has monitor look for drift now; unset: of the model it was set up for. */
  'dev.dandelion.monitoring.requested.v1': z.object({ model: modelName.optional() }),
  /** What the champion is asked, or answers, is no longer what it was trained on. */
  'dev.dandelion.drift.detected.v1': z.object({
    model: modelReference,
    /** Number of the check among those of this version, from 1. */
    check: z.number().int().positive(),
    window: z.object({ from: z.iso.datetime(), until: z.iso.datetime() }),
    photos: z.object({ reference: z.number().int(), window: z.number().int() }),
    /** Chance of this check to cry wolf. */
    level: z.number(),
    /** Every test, the clearest finding first. */
    findings: z.array(driftFinding),
    decision: z.object({ action: z.enum(['retrain', 'wait', 'none']), reason: z.string() }),
  }),
  /** The answer to any event that carries a photo; data as predict answers over plain HTTP. */
  'dev.dandelion.prediction.made.v1': z.looseObject({ model: modelReference, latencyMs: z.number() }),
} as const satisfies Record<string, z.ZodType>;

export type EventType = keyof typeof eventSchemas;
export type EventData<Type extends EventType> = z.output<(typeof eventSchemas)[Type]>;

/**
 * Checks that an event is of the expected type and that its data fit the schema.
 *
 * @throws DandelionError `bad-event` when the type differs, `bad-data` naming each wrong field
 */
export function parseEventData<Type extends EventType>(
  event: Event | undefined,
  type: Type,
): EventData<Type> {
  if (event === undefined) {
    throw new DandelionError('bad-event', `Send a CloudEvent of type ${type}; the request carries none.`);
  }
  if (event.type !== type) {
    throw new DandelionError('bad-event', `Expected an event of type ${type}, got ${event.type}.`);
  }
  const parsed = eventSchemas[type].safeParse(event.data);
  if (!parsed.success) {
    throw new DandelionError('bad-data', `The data of ${type} do not fit: ${schemaFaults(parsed.error)}.`);
  }
  return parsed.data as EventData<Type>;
}

/** Hex SHA-256 over parts; a length prefix keeps `ab`,`c` apart from `a`,`bc`. */
export function digestOf(...parts: (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part;
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return hash.digest('hex');
}

/** The ledger's name of a run: the same event sent twice to a function is one run. */
export function runIdOf(functionName: string, source: string, id: string): string {
  return digestOf(functionName, source, id).slice(0, 32);
}

/** A result's id depends on function and input alone, so a repeat downstream is a duplicate, not new work. */
export function resultIdOf(functionName: string, source: string, id: string): string {
  return digestOf('result', functionName, source, id).slice(0, 32);
}

/** A notice's id depends on function, input and place among the notices of that run: a repeat is a duplicate. */
export function noticeIdOf(functionName: string, source: string, id: string, ordinal: number): string {
  return digestOf('notice', functionName, source, id, String(ordinal)).slice(0, 32);
}

/** The version of the model that training on this event makes. */
export function modelVersionOf(source: string, id: string): string {
  return `v${digestOf('model', source, id).slice(0, 10)}`;
}

/** Builds a typed event; `time` is now unless given. */
export function createEvent<Type extends EventType>(event: {
  type: Type;
  source: string;
  id: string;
  data: EventData<Type>;
  subject?: string;
  traceparent?: string;
}): Event {
  return {
    specversion: '1.0',
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    ...event,
  };
}
