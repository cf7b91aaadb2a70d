import type { Dashboard, Panel } from './definitions.ts';

/** A line of an export of Kibana, as `POST /api/saved_objects/_import` takes it. */
export interface SavedObject {
  type: 'dashboard' | 'index-pattern';
  id: string;
  attributes: Record<string, unknown>;
  references: [];
  /** The versions that the attributes are of; Kibana brings them up to its own. */
  coreMigrationVersion: string;
  typeMigrationVersion: string;
}

const dataViews = [
  { id: 'dandelion-logs', title: 'logs-dandelion.*', name: 'Dandelion: logs' },
  { id: 'dandelion-metrics', title: 'metrics-dandelion.*', name: 'Dandelion: metrics' },
  { id: 'dandelion-predictions', title: 'predictions-dandelion.*', name: 'Dandelion: predictions' },
];

const VEGA_LITE = 'https://vega.github.io/schema/vega-lite/v5.json';

/**
 * The body of a panel's search, with the words that Kibana replaces: `%timefilter%` by the time that the dashboard
 * shows, `%dashboard_context-…%` by its filters, `%autointerval%` by an interval that fits.
 *
 * Source: Kibana, "Vega", reference for Kibana's extensions.
 */
export function panelSearch({ filter, aggs }: Pick<Panel, 'filter' | 'aggs'>) {
  const inTime = { range: { '@timestamp': { '%timefilter%': true } } };
  return {
    size: 0,
    query: {
      bool: {
        must: ['%dashboard_context-must_clause%'],
        filter: ['%dashboard_context-filter_clause%', inTime, ...filter],
        must_not: ['%dashboard_context-must_not_clause%'],
      },
    },
    aggs,
  };
}

/** A panel as Kibana's Vega draws it. */
export function panelSpec(panel: Panel): Record<string, unknown> {
  return {
    $schema: VEGA_LITE,
    data: {
      url: { index: panel.index, body: panelSearch(panel) },
      format: { property: 'aggregations.rows.buckets' },
    },
    ...panel.chart,
    config: { view: { stroke: null }, legend: { labelLimit: 300 } },
  };
}

/** Data views and dashboards; the same ids each time, so that an import takes the place of the one before. */
export function savedObjects(dashboards: readonly Dashboard[]): SavedObject[] {
  const views = dataViews.map(
    ({ id, ...attributes }): SavedObject => ({
      ...{ type: 'index-pattern', id, attributes: { ...attributes, timeFieldName: '@timestamp' } },
      ...{ references: [], coreMigrationVersion: '8.8.0', typeMigrationVersion: '8.0.0' },
    }),
  );
  return [...views, ...dashboards.map(savedDashboard)];
}

function savedDashboard({ id, title, description, panels }: Dashboard): SavedObject {
  const attributes = {
    ...{ title, description, version: 1 },
    panelsJSON: JSON.stringify(panels.map(savedPanel)),
    optionsJSON: JSON.stringify({ useMargins: true, syncColors: true, hidePanelTitles: false }),
    timeRestore: true,
    timeFrom: 'now-24h',
    timeTo: 'now',
    refreshInterval: { pause: false, value: 60_000 },
    kibanaSavedObjectMeta: {
      searchSourceJSON: JSON.stringify({ query: { query: '', language: 'kuery' }, filter: [] }),
    },
  };
  return {
    ...{ type: 'dashboard', id, attributes, references: [] },
    ...{ coreMigrationVersion: '8.8.0', typeMigrationVersion: '8.9.0' },
  };
}

/** A Vega panel that belongs to its dashboard alone. */
function savedPanel(panel: Panel) {
  const { id, title, at } = panel;
  const params = { spec: JSON.stringify(panelSpec(panel), null, 2) };
  const data = { aggs: [], searchSource: {} };
  return {
    ...{ type: 'visualization', panelIndex: id, title },
    gridData: { x: at.x, y: at.y, w: at.width, h: at.height, i: id },
    embeddableConfig: {
      savedVis: { title, description: '', type: 'vega', params, uiState: {}, data },
      enhancements: {},
    },
  };
}
