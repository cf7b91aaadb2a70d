import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { schemaFaults } from '../schema-faults.ts';

/** How often and how long a delivery is tried again. */
export interface Delivery {
  /** Tries after the first one. */
  retry: number;
  backoffPolicy: 'linear' | 'exponential';
  backoffDelayMs: number;
  /** Takes the events that nobody took; none: they are logged and gone. */
  deadLetterSink?: { function: string; path: string };
}

/** One edge of the pipeline: events that pass the filter go to the function. */
export interface Trigger {
  name: string;
  function: string;
  /** `job`: one process an event, that ends with it; `service`: one that answers many. */
  runs: 'service' | 'job';
  delivery: Delivery;
  matches(event: Event): boolean;
}

type Filter =
  | { exact: Record<string, string> }
  | { prefix: Record<string, string> }
  | { suffix: Record<string, string> }
  | { all: Filter[] }
  | { any: Filter[] }
  | { not: Filter };

const attributes = z.record(z.string(), z.string()).refine((given) => Object.keys(given).length > 0, {
  error: 'name at least one attribute',
});
const filter: z.ZodType<Filter> = z.lazy(() =>
  z.union([
    z.strictObject({ exact: attributes }),
    z.strictObject({ prefix: attributes }),
    z.strictObject({ suffix: attributes }),
    z.strictObject({ all: z.array(filter).min(1) }),
    z.strictObject({ any: z.array(filter).min(1) }),
    z.strictObject({ not: filter }),
  ]),
);

const delivery = z.object({
  retry: z.number().int().nonnegative().optional(),
  backoffPolicy: z.enum(['linear', 'exponential']).optional(),
  backoffDelay: z.string().optional(),
  deadLetterSink: z
    .object({ ref: z.object({ kind: z.literal('Service'), name: z.string() }), uri: z.string().default('/') })
    .optional(),
});

const resource = z.object({ kind: z.string(), metadata: z.object({ name: z.string() }) });
const brokerResource = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({ delivery: delivery.optional() }).optional(),
});
const triggerResource = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    broker: z.string(),
    filters: z.array(z.unknown()).default([]),
    filter: z.object({ attributes: z.record(z.string(), z.string()) }).optional(),
    subscriber: z.object({ ref: z.object({ apiVersion: z.string(), kind: z.string(), name: z.string() }) }),
    delivery: delivery.optional(),
  }),
});
type TriggerResource = z.output<typeof triggerResource>;

/** Kinds of subscribers; each is called as the function that it runs. */
const kinds: Partial<Record<string, Trigger['runs']>> = { Service: 'service', JobSink: 'job' };

/** Knative's default where neither Trigger nor Broker says otherwise. */
const defaultDelivery: Delivery = { retry: 10, backoffPolicy: 'exponential', backoffDelayMs: 200 };

/**
 * Reads the Trigger manifests of a folder, as `kubectl apply` would; resources of other kinds are passed over.
 *
 * @throws DandelionError `bad-config` naming the file and what in it cannot be routed here
 */
export async function readTriggers(folder: string): Promise<Trigger[]> {
  const files = (await readdir(folder)).filter((name) => /\.ya?ml$/.test(name)).sort();
  const contents = await Promise.all(files.map((name) => readFile(join(folder, name), 'utf8')));
  return parseTriggers(files.map((name, index) => ({ name, text: contents[index] ?? '' })));
}

/**
 * Reads Broker and Trigger manifests from YAML texts.
 *
 * @throws DandelionError `bad-config`
 */
export function parseTriggers(files: { name: string; text: string }[]): Trigger[] {
  const resources = files.flatMap(({ name, text }) => parseResources(name, text));
  const brokers = new Map(
    resources
      .filter(({ kind }) => kind === 'Broker')
      .map(({ file, content }) => {
        const { metadata, spec } = checked(brokerResource, content, file);
        return [metadata.name, spec?.delivery] as const;
      }),
  );
  return resources
    .filter(({ kind }) => kind === 'Trigger')
    .map(({ file, content }) => {
      const trigger = checked(triggerResource, content, file);
      return toTrigger(trigger, file, brokers.get(trigger.spec.broker));
    });
}

function parseResources(file: string, text: string) {
  return parseAllDocuments(text).flatMap((document) => {
    const [fault] = document.errors;
    if (fault !== undefined) throw new DandelionError('bad-config', `${file}: ${fault.message}`);
    const content: unknown = document.toJS();
    const parsed = resource.safeParse(content);
    return parsed.success ? [{ file, kind: parsed.data.kind, content }] : [];
  });
}

function checked<Schema extends z.ZodType>(
  schema: Schema,
  content: unknown,
  where: string,
): z.output<Schema> {
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;
  const faults = schemaFaults(parsed.error, 'document');
  throw new DandelionError('bad-config', `${where}: ${faults}.`);
}

function toTrigger(
  { metadata, spec }: TriggerResource,
  file: string,
  inherited: z.output<typeof delivery> | undefined,
): Trigger {
  const where = `${file}, Trigger ${metadata.name}`;
  const { ref } = spec.subscriber;
  const runs = kinds[ref.kind];
  if (runs === undefined) {
    throw new DandelionError(
      'bad-config',
      `${where}: a subscriber of kind ${ref.kind} cannot be run on one machine; name the Service or the JobSink of a function.`,
    );
  }
  const filters = spec.filters.map((content) => {
    if (JSON.stringify(content).includes('"cesql":')) {
      throw new DandelionError(
        'bad-config',
        `${where}: CESQL filters are not understood here; use exact, prefix, suffix, all, any and not.`,
      );
    }
    return checked(filter, content, `${where}, filters`);
  });
  // As in Knative: the older `filter` counts only where there are no `filters`.
  if (filters.length === 0 && spec.filter !== undefined) {
    const given = Object.entries(spec.filter.attributes).filter(([, value]) => value !== '');
    if (given.length > 0) filters.push({ exact: Object.fromEntries(given) });
  }
  return {
    name: metadata.name,
    function: ref.name,
    runs,
    delivery: toDelivery({ ...inherited, ...spec.delivery }, where),
    matches: (event) => filters.every((each) => passes(each, event)),
  };
}

function toDelivery(given: z.output<typeof delivery>, where: string): Delivery {
  const delayMs = given.backoffDelay === undefined ? undefined : parseDuration(given.backoffDelay, where);
  const { deadLetterSink: sink } = given;
  return {
    ...(sink === undefined ? {} : { deadLetterSink: { function: sink.ref.name, path: sink.uri } }),
    retry: given.retry ?? defaultDelivery.retry,
    backoffPolicy: given.backoffPolicy ?? defaultDelivery.backoffPolicy,
    backoffDelayMs: delayMs ?? defaultDelivery.backoffDelayMs,
  };
}

/** ISO 8601 durations of hours, minutes and seconds, as `PT0.2S`. */
function parseDuration(text: string, where: string): number {
  const match = /^PT(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?$/.exec(text);
  if (match === null) {
    throw new DandelionError('bad-config', `${where}: "${text}" is not a duration such as PT0.2S.`);
  }
  const [hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return Math.round(((hours ?? 0) * 3600 + (minutes ?? 0) * 60 + (seconds ?? 0)) * 1000);
}

/** Source: Knative Eventing, Trigger filters (the dialects of the CloudEvents Subscriptions API, section 3.2.4). */
function passes(given: Filter, event: Event): boolean {
  if ('exact' in given) return everyAttribute(given.exact, event, (value, wanted) => value === wanted);
  if ('prefix' in given)
    return everyAttribute(given.prefix, event, (value, start) => value.startsWith(start));
  if ('suffix' in given) return everyAttribute(given.suffix, event, (value, end) => value.endsWith(end));
  if ('all' in given) return given.all.every((each) => passes(each, event));
  if ('any' in given) return given.any.some((each) => passes(each, event));
  return !passes(given.not, event);
}

function everyAttribute(
  wanted: Record<string, string>,
  event: Event,
  test: (value: string, wanted: string) => boolean,
): boolean {
  return Object.entries(wanted).every(([name, text]) => {
    const value = name === 'data' || name === 'data_base64' ? undefined : event[name];
    return value !== undefined && value !== null && test(String(value), text);
  });
}
