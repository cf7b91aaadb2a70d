import type { Client, estypes } from '@elastic/elasticsearch';
import type { SearchSettings } from '../config.ts';
import type { StreamType } from './search-documents.ts';

/** Raised with every change of a mapping below: an older pod then leaves the newer templates alone. */
const TEMPLATES_VERSION = 3;
/** Above Elastic's own `logs-*-*` and `metrics-*-*` (100), below what an operator would set to overrule us. */
const PRIORITY = 250;

const types: readonly StreamType[] = ['logs', 'metrics', 'predictions'];

const keyword = { type: 'keyword', ignore_above: 1024 } as const;
const long = { type: 'long' } as const;
const double = { type: 'double' } as const;
const text = { type: 'text', norms: false } as const;
const objectOf = (properties: Record<string, estypes.MappingProperty>) => ({ properties });

/** Plain field types only: builds without the x-pack modules have neither `wildcard` nor `scaled_float`. */
const ecsMappings: estypes.MappingTypeMapping = {
  date_detection: false,
  dynamic_templates: [
    { strings: { match_mapping_type: 'string', mapping: keyword } },
    // Before its first fraction a sum looks like a whole number.
    { figures: { path_match: 'dandelion.*', match_mapping_type: ['long', 'double'], mapping: double } },
    { fractions: { match_mapping_type: 'double', mapping: double } },
  ],
  properties: {
    '@timestamp': { type: 'date' },
    message: text,
    data_stream: objectOf({ type: keyword, dataset: keyword, namespace: keyword }),
    ecs: objectOf({ version: keyword }),
    labels: { type: 'object', dynamic: true },
    log: objectOf({ level: keyword, logger: keyword }),
    service: objectOf({ name: keyword, version: keyword, node: objectOf({ name: keyword }) }),
    trace: objectOf({ id: keyword }),
    span: objectOf({ id: keyword }),
    event: objectOf({
      ...{
        id: keyword,
        kind: keyword,
        category: keyword,
        action: keyword,
        outcome: keyword,
        dataset: keyword,
      },
      duration: long,
    }),
    error: objectOf({ code: keyword, type: keyword, message: text, stack_trace: text }),
    faas: objectOf({
      ...{ name: keyword, id: keyword, version: keyword, execution: keyword },
      coldstart: { type: 'boolean' },
      trigger: objectOf({ type: keyword }),
    }),
    http: objectOf({
      request: objectOf({ method: keyword, body: objectOf({ bytes: long }) }),
      response: objectOf({ status_code: { type: 'short' } }),
    }),
    url: objectOf({ path: keyword }),
    // Not `ip`: a proxy may name a client by what is no address.
    client: objectOf({ address: keyword }),
    host: objectOf({ hostname: keyword }),
    process: objectOf({ pid: long }),
  },
};

const mlMappings: estypes.MappingTypeMapping = {
  dynamic_templates: [
    { statistics: { path_match: 'ml.input.*', match_mapping_type: ['long', 'double'], mapping: double } },
  ],
  properties: {
    ml: objectOf({
      model: objectOf({ name: keyword, version: keyword }),
      prediction: objectOf({
        outcome: keyword,
        // How many predictions the document stands for: what counts of predictions sum up.
        weight: double,
        label: keyword,
        score: double,
        margin: double,
        latency_ms: double,
        // One field for all classes: a field a class would be thousands.
        scores: { type: 'flattened' },
      }),
      input: { type: 'object', dynamic: true },
      embedding: objectOf({ digest: keyword }),
      drift: { type: 'object', dynamic: true },
      // 1 where the answer was right: its average is the accuracy.
      feedback: objectOf({ predicted: keyword, label: keyword, correct: double, score: double }),
    }),
  },
};

/** How the age of documents is bounded on this server. */
export type Retention = 'ilm' | 'lifecycle' | 'none';

export interface TemplatesOutcome {
  retention: Retention;
  /** What an operator should know, each once. */
  notices: string[];
}

interface Meta {
  managed_by: 'dandelion';
  version: number;
  retentionDays: number;
  /** Empty without one: Elasticsearch 9.5 makes no data stream by a template whose `_meta` has a null. */
  ilmPolicy: string;
}

/**
 * Puts component and index templates where they are not, or are older. Any number of pods may do so at once: all put
 * the same, and what is there already is left alone.
 *
 * @throws what the client throws; explained by `explainSearchFault`
 */
export async function setUpTemplates(client: Client, settings: SearchSettings): Promise<TemplatesOutcome> {
  const notices: string[] = [];
  const wanted: Meta = {
    managed_by: 'dandelion',
    version: TEMPLATES_VERSION,
    retentionDays: settings.ELASTICSEARCH_RETENTION_DAYS,
    ilmPolicy: settings.ELASTICSEARCH_ILM_POLICY ?? '',
  };
  const hasLifecycle = await knowsDataStreamLifecycle(client);
  const present = await presentMeta(client);
  let retention: Retention = wanted.ilmPolicy !== '' ? 'ilm' : hasLifecycle ? 'lifecycle' : 'none';
  if (!isUpToDate(present, wanted)) {
    await putComponents(client, wanted);
    try {
      await putIndexTemplates(client, wanted, retention);
    } catch (error) {
      if (retention !== 'ilm' || !isRefusedSetting(error)) throw error;
      retention = hasLifecycle ? 'lifecycle' : 'none';
      notices.push(
        'this Elasticsearch has no index lifecycle management: ELASTICSEARCH_ILM_POLICY is not used',
      );
      await putIndexTemplates(client, wanted, retention);
    }
    // Last: whoever finds it finds everything.
    await putMarker(client, wanted, retention);
    if (present !== undefined) await renewStreams(client, wanted, retention);
  } else if (present?.retention !== undefined) retention = present.retention;
  if (retention === 'none') {
    notices.push('this Elasticsearch has no data stream lifecycle: nothing deletes old documents there');
  }
  return { retention, notices };
}

/** Asks for the lifecycle of streams that need not exist; a build without the feature has no such path. */
async function knowsDataStreamLifecycle(client: Client): Promise<boolean> {
  const { statusCode } = await client.transport.request(
    { method: 'GET', path: '/_data_stream/logs-dandelion.*/_lifecycle' },
    { meta: true, ignore: [400, 404, 405, 410] },
  );
  return statusCode === 200 || statusCode === 404;
}

const MARKER = 'dandelion-templates';

async function presentMeta(client: Client): Promise<(Meta & { retention?: Retention }) | undefined> {
  const found = await client.cluster.getComponentTemplate({ name: MARKER }, { ignore: [404] });
  const meta = found.component_templates?.[0]?.component_template._meta;
  return meta?.managed_by === 'dandelion' ? (meta as Meta & { retention?: Retention }) : undefined;
}

function isUpToDate(present: Meta | undefined, wanted: Meta): boolean {
  if (present === undefined || present.version < wanted.version) return false;
  if (present.version > wanted.version) return true;
  return present.retentionDays === wanted.retentionDays && present.ilmPolicy === wanted.ilmPolicy;
}

async function putComponents(client: Client, meta: Meta): Promise<void> {
  const settings: estypes.IndicesIndexSettings = {
    // A field that does not fit is left out; the document is worth more.
    mapping: { ignore_malformed: true, total_fields: { limit: 1000, ignore_dynamic_beyond_limit: true } },
    auto_expand_replicas: '0-1',
  };
  const put = (name: string, template: estypes.IndicesIndexState) =>
    client.cluster.putComponentTemplate({ name, version: meta.version, _meta: { ...meta }, template });
  await put('dandelion-settings', { settings });
  await put('dandelion-ecs', { mappings: ecsMappings });
  await put('dandelion-ml', { mappings: mlMappings });
}

async function putMarker(client: Client, meta: Meta, retention: Retention): Promise<void> {
  const _meta = { ...meta, retention };
  await client.cluster.putComponentTemplate({ name: MARKER, version: meta.version, _meta, template: {} });
}

async function putIndexTemplates(client: Client, meta: Meta, retention: Retention): Promise<void> {
  const lifecycle =
    retention === 'lifecycle' ? { lifecycle: { data_retention: `${meta.retentionDays}d` } } : {};
  const settings =
    retention === 'ilm' ? { settings: { index: { lifecycle: { name: meta.ilmPolicy } } } } : {};
  for (const type of types) {
    await client.indices.putIndexTemplate({
      name: `dandelion-${type}`,
      index_patterns: [`${type}-dandelion.*-*`],
      data_stream: {},
      priority: PRIORITY,
      version: meta.version,
      _meta: { ...meta },
      composed_of: ['dandelion-settings', 'dandelion-ecs', 'dandelion-ml'],
      template: { ...lifecycle, ...settings },
    });
  }
}

/** Templates shape only what is made after them: streams that are there begin a new index with their next document. */
async function renewStreams(client: Client, meta: Meta, retention: Retention): Promise<void> {
  const names = types.map((type) => `${type}-dandelion.*`);
  const { data_streams: streams } = await client.indices.getDataStream({ name: names });
  for (const { name } of streams) {
    await client.indices.rollover({ alias: name, lazy: true });
    if (retention !== 'lifecycle') continue;
    await client.indices.putDataLifecycle({ name, data_retention: `${meta.retentionDays}d` });
  }
}

function isRefusedSetting(error: unknown): boolean {
  return error instanceof Error && 'statusCode' in error && error.statusCode === 400;
}
