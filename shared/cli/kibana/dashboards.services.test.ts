import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Client, estypes } from '@elastic/elasticsearch';
import { parse, View, Warn } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readConfig, searchSettings } from '../../config.ts';
import { openSearch, type Search } from '../../stores/search.ts';
import { describeService } from '../../stores/testing-services.ts';
import { type Panel, readDefinitions } from './definitions.ts';
import { ruleSearch } from './rules.ts';
import { panelSearch, panelSpec } from './saved-objects.ts';
import { dayOfDocuments } from './testing-documents.ts';

/** Streams of this run alone, on a server that others may use. */
const namespace = `kibana${randomBytes(4).toString('hex')}`;
const { dashboards, rules } = await readDefinitions(resolve(import.meta.dirname, '../../../knative/kibana'));
const panels = dashboards.flatMap(({ id, panels }) =>
  panels.map((panel) => [`${id}/${panel.id}`, panel] as const),
);
/** Pictures of the panels go there, for who wants to look at them. */
const pictures = process.env.KIBANA_PICTURES;

/** Replaces Kibana's words as Kibana does (its EsQueryParser), for a dashboard that shows the last day. */
function asKibana(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.filter((item) => !String(item).startsWith('%dashboard_context')).map(asKibana);
  }
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]: [string, unknown]) => {
      const words = typeof inner === 'object' && inner !== null ? Object.keys(inner) : [];
      if (key === 'interval' && words.includes('%autointerval%')) return ['fixed_interval', '30m'];
      if (words.includes('%timefilter%')) return [key, { gte: 'now-25h', lte: 'now' }];
      return [key, asKibana(inner)];
    }),
  );
}

describeService('ELASTICSEARCH_URL', 'Elasticsearch', (url) => {
  let search: Search;
  let client: Client;

  beforeAll(async () => {
    const env = { ...process.env, ELASTICSEARCH_URL: url, ELASTICSEARCH_NAMESPACE: namespace };
    const opened = openSearch(readConfig(searchSettings, env), () => {});
    if (opened === undefined) throw new Error('no address');
    search = opened;
    client = await search.client();
    const documents = await dayOfDocuments(namespace);
    expect(await search.store(documents, AbortSignal.timeout(100_000))).toEqual([]);
    await client.indices.refresh({ index: `*-dandelion.*-${namespace}` });
  });

  afterAll(async () => {
    const name = ['logs', 'metrics', 'predictions'].map((type) => `${type}-dandelion.*-${namespace}`);
    await client?.indices.deleteDataStream({ name });
    search?.close();
  });

  /** Of this run's documents only. */
  const query = (wanted: unknown): estypes.QueryDslQueryContainer => ({
    bool: {
      filter: [wanted as estypes.QueryDslQueryContainer, { term: { 'data_stream.namespace': namespace } }],
    },
  });

  async function answer({ index, ...panel }: Panel) {
    const { query: wanted, aggs } = asKibana(panelSearch(panel)) as { query: object; aggs: object };
    return client.search({
      index,
      size: 0,
      query: query(wanted),
      aggs: aggs as estypes.SearchRequest['aggs'],
    });
  }

  describe.each(panels)('the panel %s', (name, panel) => {
    test('finds rows in what functions write, and is drawn from them', async () => {
      const response = await answer(panel);
      const { buckets = [] } = (response.aggregations?.rows ?? {}) as { buckets?: unknown[] };
      expect(buckets.length).toBeGreaterThan(0);

      const warnings: string[] = [];
      const { data: _url, ...spec } = panelSpec(panel);
      const drawn = {
        ...spec,
        width: 480,
        height: 240,
        data: { values: buckets },
      } as unknown as TopLevelSpec;
      const view = new View(parse(compile(drawn).spec), { renderer: 'none', logLevel: Warn });
      view.logger().warn = (...words: readonly unknown[]) => {
        warnings.push(words.join(' '));
        return view.logger();
      };
      const svg = await view.toSVG();
      if (pictures !== undefined) {
        await mkdir(pictures, { recursive: true });
        await writeFile(join(pictures, `${name.replace('/', '-')}.svg`), svg);
      }
      expect(warnings).toEqual([]);
      expect(svg).toMatch(/aria-roledescription="[^"]*(bar|area|line|point|rect|rule)/i);
      expect(svg).not.toContain('NaN');
    });
  });

  test.each(rules.map((rule) => [rule.name, rule] as const))(
    'the rule "%s" sees what it is for',
    async (_name, rule) => {
      const { query: wanted } = ruleSearch(rule);
      const { count } = await client.count({ index: rule.index, query: query(wanted) });
      expect(count).toBeGreaterThan(0);
    },
  );
});
