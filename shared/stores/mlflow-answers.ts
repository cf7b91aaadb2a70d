import { z } from 'zod';

/** Empty lists and fields are left out of MLflow's answers. */
const entries = z.array(z.object({ key: z.string(), value: z.string().default('') })).default([]);
const asRecord = entries.transform((list) =>
  Object.fromEntries(list.map(({ key, value }) => [key, value] as const)),
);
/** JSON has no NaN: MLflow writes it as a string. 64-bit numbers may come as strings, too. */
const number = z.union([z.number(), z.string().transform(Number)]).default(0);
export const metric = z.object({ key: z.string(), value: number, timestamp: number, step: number });
export type MlflowMetric = z.output<typeof metric>;

export const run = z.object({
  info: z.object({
    run_id: z.string(),
    experiment_id: z.string(),
    run_name: z.string().default(''),
    status: z.string(),
    start_time: number,
    artifact_uri: z.string(),
  }),
  data: z.object({ metrics: z.array(metric).default([]), params: asRecord, tags: asRecord }).prefault({}),
  inputs: z
    .object({
      dataset_inputs: z
        .array(z.object({ dataset: z.object({ name: z.string(), digest: z.string() }) }))
        .default([]),
    })
    .prefault({}),
  outputs: z.object({ model_outputs: z.array(z.object({ model_id: z.string() })).default([]) }).prefault({}),
});
export type MlflowRun = z.output<typeof run>;

export const experiment = z.object({
  experiment_id: z.string(),
  name: z.string(),
  lifecycle_stage: z.string(),
});
export const loggedModel = z.object({
  info: z.object({ model_id: z.string(), name: z.string(), artifact_uri: z.string(), status: z.string() }),
});
export type MlflowModel = z.output<typeof loggedModel>['info'];

export const version = z.object({
  name: z.string(),
  version: z.string(),
  run_id: z.string().default(''),
  source: z.string().default(''),
  aliases: z.array(z.string()).default([]),
  tags: asRecord,
});
export type MlflowVersion = z.output<typeof version>;
export const nothing = z.object({});

/** A page of a list that may be left out when empty. */
export function page<Name extends string, Item extends z.ZodType>(name: Name, item: Item) {
  const list = z.array(item).default([]);
  const shape = { [name]: list, next_page_token: z.string().optional() };
  return z.object(shape as Record<Name, typeof list> & { next_page_token: z.ZodOptional<z.ZodString> });
}
