import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { z } from 'zod';

/**
 * As much of Kibana 9 as an import meets, and as strict about it: what Kibana refuses, this does.
 *
 * Source: the schemas of Kibana's routes and saved objects: alerting (create and update a rule), the rule type
 * ".es-query" of stack_alerts, the saved object "dashboard" with its schema of 8.9.0, "index-pattern" of data_views.
 */
export interface KibanaServer {
  url: string;
  calls: { method: string; path: string; body: string }[];
  rules: Map<string, StoredRule>;
  /** By type and id. */
  objects: Map<string, unknown>;
  /** Of every answer; 200 unless set. */
  status: number;
  close(): Promise<void>;
}

type StoredRule = z.infer<typeof newRule>;

const duration = z.string().regex(/^[1-9]\d*[smhd]$/);
const esQueryParams = z
  .strictObject({
    searchType: z.literal('esQuery'),
    esQuery: z.string().min(1),
    index: z.array(z.string().min(1)).min(1),
    timeField: z.string().min(1),
    size: z.number().min(0).max(10_000),
    timeWindowSize: z.number().min(1),
    timeWindowUnit: z.enum(['s', 'm', 'h', 'd']),
    threshold: z.array(z.number()).min(1).max(2),
    thresholdComparator: z.enum(['>', '>=', '<', '<=']),
    aggType: z.literal('count'),
    groupBy: z.literal('all'),
    excludeHitsFromPreviousRun: z.boolean(),
  })
  .refine(
    ({ esQuery }) =>
      z.object({ query: z.record(z.string(), z.unknown()) }).safeParse(JSON.parse(esQuery)).success,
  );

const action = z.strictObject({
  id: z.string(),
  group: z.string().optional(),
  params: z.record(z.string(), z.unknown()).default({}),
  uuid: z.string().optional(),
  frequency: z
    .strictObject({ summary: z.boolean(), notify_when: z.string(), throttle: duration.nullable() })
    .optional(),
  alerts_filter: z
    .strictObject({ query: z.unknown().optional(), timeframe: z.unknown().optional() })
    .optional(),
  use_alert_data_for_template: z.boolean().optional(),
});
const updatedRule = z.strictObject({
  name: z.string(),
  tags: z.array(z.string()).default([]),
  schedule: z.strictObject({ interval: duration }),
  params: esQueryParams,
  actions: z.array(action).default([]),
});
const newRule = updatedRule.extend({
  rule_type_id: z.literal('.es-query'),
  consumer: z.enum(['stackAlerts', 'alerts', 'logs', 'observability']),
  enabled: z.boolean().default(true),
});

const jsonText = <Schema extends z.ZodType>(schema: Schema) =>
  z.string().transform((text, context) => {
    const parsed = schema.safeParse(JSON.parse(text));
    if (parsed.success) return parsed.data;
    context.addIssue({ code: 'custom', message: parsed.error.message });
    return z.NEVER;
  });
const panel = z.strictObject({
  type: z.literal('visualization'),
  panelIndex: z.string(),
  title: z.string(),
  gridData: z.strictObject({
    ...{ x: z.number().int().min(0).max(47), y: z.number().int().min(0) },
    ...{ w: z.number().int().min(1).max(48), h: z.number().int().min(1), i: z.string() },
  }),
  embeddableConfig: z.strictObject({
    enhancements: z.strictObject({}),
    savedVis: z.strictObject({
      ...{ title: z.string(), description: z.string(), type: z.literal('vega') },
      params: z.strictObject({ spec: z.string() }),
      uiState: z.strictObject({}),
      data: z.strictObject({ aggs: z.array(z.unknown()), searchSource: z.record(z.string(), z.unknown()) }),
    }),
  }),
});
const references = z.array(z.never());
const savedObject = z.discriminatedUnion('type', [
  z.strictObject({
    ...{ type: z.literal('dashboard'), id: z.string(), references },
    // Of its schemas the one that forbids what it does not know.
    ...{ coreMigrationVersion: z.literal('8.8.0'), typeMigrationVersion: z.literal('8.9.0') },
    attributes: z.strictObject({
      title: z.string(),
      description: z.string(),
      version: z.number(),
      timeRestore: z.boolean(),
      timeFrom: z.string(),
      timeTo: z.string(),
      refreshInterval: z.strictObject({ pause: z.boolean(), value: z.number() }),
      panelsJSON: jsonText(z.array(panel).min(1)),
      optionsJSON: jsonText(z.record(z.string(), z.boolean())),
      kibanaSavedObjectMeta: z.strictObject({
        searchSourceJSON: jsonText(z.record(z.string(), z.unknown())),
      }),
    }),
  }),
  z.strictObject({
    ...{ type: z.literal('index-pattern'), id: z.string(), references },
    // Since then it belongs to several spaces, and its attributes have not changed.
    ...{ coreMigrationVersion: z.literal('8.8.0'), typeMigrationVersion: z.literal('8.0.0') },
    attributes: z.strictObject({ title: z.string(), name: z.string(), timeFieldName: z.string() }),
  }),
]);

export async function startKibana(): Promise<KibanaServer> {
  const http = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    const { method = '', url: path = '' } = request;
    kibana.calls.push({ method, path, body: body.toString() });
    const [status, answer] = await answerTo(kibana, request, body).catch((error: unknown) => [
      ...([400, { statusCode: 400, error: 'Bad Request', message: String(error) }] as const),
    ]);
    response.writeHead(Number(status), { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  }).listen(0, '127.0.0.1');
  await once(http, 'listening');
  const address = http.address();
  const kibana: KibanaServer = {
    url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    ...{ calls: [], rules: new Map(), objects: new Map(), status: 200 },
    async close() {
      http.closeAllConnections();
      http.close();
      await once(http, 'close');
    },
  };
  return kibana;
}

type Answered = readonly [status: number, body: unknown];

async function answerTo(kibana: KibanaServer, request: IncomingMessage, body: Buffer): Promise<Answered> {
  const { method = '', url = '', headers } = request;
  if (kibana.status !== 200) return [kibana.status, { message: 'as the test wants' }];
  const isWrite = method !== 'GET';
  if (isWrite && headers['kbn-xsrf'] === undefined)
    return [400, { message: 'Request must contain a kbn-xsrf header.' }];
  const { pathname, searchParams } = new URL(url, kibana.url);
  if (pathname === '/api/status') return [200, { status: { overall: { level: 'available' } } }];
  if (pathname === '/api/saved_objects/_import' && isWrite) {
    return takeObjects(kibana, searchParams, headers['content-type'] ?? '', body);
  }
  const [, id] = /^\/api\/alerting\/rule\/([^/]+)$/.exec(pathname) ?? [];
  if (id === undefined) return [404, { message: 'Not Found' }];
  return answerRule(kibana, method, id, body);
}

async function takeObjects(
  kibana: KibanaServer,
  query: URLSearchParams,
  contentType: string,
  body: Buffer,
): Promise<Answered> {
  const form = await new Response(new Uint8Array(body), {
    headers: { 'content-type': contentType },
  }).formData();
  const file = form.get('file');
  if (!(file instanceof File) || !file.name.endsWith('.ndjson'))
    return [415, { message: 'Invalid file extension' }];
  const lines = (await file.text()).split('\n').filter((line) => line !== '');
  const objects = lines.map((line) => savedObject.parse(JSON.parse(line)));
  const keys = objects.map(({ type, id }) => `${type}:${id}`);
  const conflicts = keys.filter((key) => kibana.objects.has(key));
  if (conflicts.length > 0 && query.get('overwrite') !== 'true') {
    const errors = conflicts.map((id) => ({ id, error: { type: 'conflict' } }));
    return [200, { success: false, successCount: 0, errors }];
  }
  for (const [place, key] of keys.entries()) kibana.objects.set(key, objects[place]);
  return [200, { success: true, successCount: objects.length }];
}

function answerRule({ rules }: KibanaServer, method: string, id: string, body: Buffer): Answered {
  const known = rules.get(id);
  if (method === 'POST') {
    if (known !== undefined) return [409, { message: 'conflict' }];
    rules.set(id, newRule.parse(JSON.parse(body.toString())));
  }
  if (method !== 'POST' && known === undefined)
    return [404, { message: `Saved object [alert/${id}] not found` }];
  if (method === 'PUT' && known !== undefined) {
    rules.set(id, { ...known, ...updatedRule.parse(JSON.parse(body.toString())) });
  }
  const rule = rules.get(id);
  // With what only Kibana says of them, and takes from nobody.
  const actions = rule?.actions.map((each) => ({ ...each, connector_type_id: '.server-log' }));
  return [200, { id, ...rule, actions, mute_all: false, revision: 1 }];
}
