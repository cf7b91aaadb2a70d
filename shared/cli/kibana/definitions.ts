import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { schemaFaults } from '../../schema-faults.ts';

/** A place on Kibana's grid of 48 columns. */
const place = z.strictObject({
  x: z.number().int().min(0).max(47),
  y: z.number().int().min(0),
  width: z.number().int().min(1).max(48),
  height: z.number().int().min(1),
});
/** Elasticsearch and Vega-Lite say themselves what belongs in these. */
const open = z.record(z.string(), z.unknown());

const panel = z.strictObject({
  id: z.string().regex(/^[a-z-]+$/),
  title: z.string(),
  at: place,
  index: z.string().regex(/^(logs|metrics|predictions)-dandelion\./),
  /** What a document must fulfil, besides the time and the filters of the dashboard. */
  filter: z.array(open).default([]),
  /** Its `rows` are what the chart is drawn from. */
  aggs: z.looseObject({ rows: open }),
  /** The rest of a Vega-Lite specification. */
  chart: open,
});
export type Panel = z.infer<typeof panel>;

const dashboard = z.strictObject({
  id: z.string().regex(/^dandelion-[a-z]+$/),
  title: z.string(),
  description: z.string(),
  panels: z.array(panel).min(1),
});
export type Dashboard = z.infer<typeof dashboard>;

const rule = z.strictObject({
  /** Kibana takes no other id for what it encrypts. */
  id: z.uuid(),
  name: z.string(),
  /** How often it looks. */
  every: z.string().regex(/^\d+[smhd]$/),
  /** How far back. */
  window: z.strictObject({ size: z.number().int().min(1), unit: z.enum(['s', 'm', 'h', 'd']) }),
  /** Documents; more of them raise the alarm. */
  moreThan: z.number().int().min(0),
  index: z.string().regex(/^(logs|metrics|predictions)-dandelion\./),
  filter: z.array(open).min(1),
});
export type Rule = z.infer<typeof rule>;

/** Everything that Kibana is given. */
export interface KibanaDefinitions {
  dashboards: Dashboard[];
  rules: Rule[];
}

/**
 * Reads dashboards and alert rules.
 *
 * @param folder with `dashboards/*.yaml` and `rules.yaml`
 * @throws DandelionError `bad-config` naming the file and what is wrong in it
 */
export async function readDefinitions(folder: string): Promise<KibanaDefinitions> {
  const names = (await readdir(join(folder, 'dashboards'))).filter((name) => name.endsWith('.yaml')).sort();
  const dashboards = names.map((name) => readYaml(join(folder, 'dashboards', name), dashboard));
  return {
    dashboards: await Promise.all(dashboards),
    rules: await readYaml(join(folder, 'rules.yaml'), z.array(rule)),
  };
}

async function readYaml<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.output<Schema>> {
  const parsed = schema.safeParse(parse(await readFile(path, 'utf8')));
  if (parsed.success) return parsed.data;
  const faults = schemaFaults(parsed.error, 'document');
  throw new DandelionError('bad-config', `${path} is not as it should be: ${faults}.`);
}
