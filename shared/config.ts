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

/** Settings of every function that works on the stores. */
export const storeSettings = z.object({
  /** PostgreSQL: `postgres://user:password@host:port/database`. */
  DATABASE_URL: z.string().regex(/^postgres(ql)?:\/\//, 'use postgres://user:password@host:port/database'),
  /** Folder of the file object store. */
  OBJECTS_DIR: z.string().min(1),
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
