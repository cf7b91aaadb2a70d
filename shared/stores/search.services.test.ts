import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readConfig, searchSettings } from '../config.ts';
import type { PredictionRecord } from '../events.ts';
import { openSearch, type Search } from './search.ts';
import { predictionDocument, streamName } from './search-documents.ts';
import { setUpTemplates } from './search-templates.ts';
import { createSearchWriter } from './search-writer.ts';
import { describeService } from './testing-services.ts';
import { openWay } from './testing-way.ts';

/** Streams of this run alone, on a server that others may use. */
const namespace = `test${randomBytes(4).toString('hex')}`;

function openAt(url: string, more: Record<string, string> = {}, notices: string[] = []): Search {
  const env = { ...process.env, ELASTICSEARCH_URL: url, ELASTICSEARCH_NAMESPACE: namespace, ...more };
  const search = openSearch(readConfig(searchSettings, env), (sentence) => notices.push(sentence));
  if (search === undefined) throw new Error('no address');
  return search;
}

describeService('ELASTICSEARCH_URL', 'Elasticsearch', (url) => {
  let search: Search;

  beforeAll(() => {
    search = openAt(url);
  });

  afterAll(async () => {
    const client = await search.client();
    const name = ['logs', 'metrics', 'predictions'].map((type) => `${type}-dandelion.*-${namespace}`);
    await client.indices.deleteDataStream({ name });
    search.close();
  });

  async function count(stream: string): Promise<number> {
    const client = await search.client();
    await client.indices.refresh({ index: stream });
    return (await client.count({ index: stream })).count;
  }

  test('templates may be put by many pods at once, and again', async () => {
    const settings = readConfig(searchSettings, { ELASTICSEARCH_URL: url });
    const client = await search.client();
    await client.cluster.deleteComponentTemplate({ name: 'dandelion-templates' }, { ignore: [404] });
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => setUpTemplates(client, settings)));
    const again = await setUpTemplates(client, settings);
    expect(new Set([...outcomes, again].map(({ retention }) => retention)).size).toBe(1);
    const { index_templates } = await client.indices.getIndexTemplate({ name: 'dandelion-*' });
    expect(index_templates.map(({ name }) => name).sort()).toEqual([
      'dandelion-logs',
      'dandelion-metrics',
      'dandelion-predictions',
    ]);
    expect(index_templates[0]?.index_template.data_stream).toBeDefined();
  });

  test('retention is data stream lifecycle where the server has it, and said where it does not', async () => {
    const client = await search.client();
    const settings = readConfig(searchSettings, {
      ELASTICSEARCH_URL: url,
      ELASTICSEARCH_RETENTION_DAYS: '7',
    });
    const { retention, notices } = await setUpTemplates(client, settings);
    const { index_templates } = await client.indices.getIndexTemplate({ name: 'dandelion-logs' });
    const lifecycle = index_templates[0]?.index_template.template?.lifecycle;
    if (retention === 'lifecycle') expect(lifecycle).toMatchObject({ data_retention: '7d' });
    else {
      expect(lifecycle).toBeUndefined();
      expect(notices).toEqual([expect.stringContaining('nothing deletes old documents')]);
    }
    await setUpTemplates(client, readConfig(searchSettings, { ELASTICSEARCH_URL: url }));
  });

  test('a policy is used where there is lifecycle management, and told of where there is not', async () => {
    const client = await search.client();
    const { statusCode } = await client.transport.request(
      { method: 'GET', path: '/_ilm/policy' },
      { meta: true, ignore: [400, 404, 405] },
    );
    const settings = readConfig(searchSettings, {
      ELASTICSEARCH_URL: url,
      ELASTICSEARCH_ILM_POLICY: 'logs',
    });
    const { retention, notices } = await setUpTemplates(client, settings);
    if (statusCode === 200) expect(retention).toBe('ilm');
    else expect(notices[0]).toContain('ELASTICSEARCH_ILM_POLICY is not used');
    await setUpTemplates(client, readConfig(searchSettings, { ELASTICSEARCH_URL: url }));
  });

  test('predictions are found by aggregation; a repeat changes nothing', async () => {
    const record = (place: number): PredictionRecord => ({
      id: `prediction-${place}`,
      time: new Date(Date.UTC(2030, 0, 1, 0, 0, place)).toISOString(),
      traceId: randomBytes(16).toString('hex'),
      model: { name: 'flowers', version: place < 60 ? 'v0000000001' : 'v0000000002' },
      ...{ revision: 'predict-00001', outcome: 'answered', code: null, weight: 10 },
      label: place % 3 === 0 ? 'grass' : 'dandelion',
      scores: { 'dandelion.officinale': 0.75, grass: 0.25 },
      latencyMs: 12.5,
      // A whole number first: the next may have a fraction.
      input: { brightness: place === 0 ? 1 : 0.5, width: 640 },
      embedding: { digest: 'abc' },
      clientHash: 'c0ffee',
      // What releases write differs, and stands in one stream.
      schemaVersion: 1 + (place % 3),
      ...(place % 3 === 1 && { sketch: { id: 'count-sketch-32-v1', values: [0.25, -3] } }),
      ...(place % 3 === 2 && { sketchBytes: { id: 'count-sketch-32-v1', float32: 'AACAPgAAQMA=' } }),
    });
    const unanswered = { label: null, scores: {}, input: {}, embedding: undefined };
    const records = [
      ...Array.from({ length: 90 }, (_, place) => record(place)),
      { ...record(90), ...unanswered, outcome: 'refused' as const, code: 'not-an-image' },
      {
        ...{ ...record(91), ...unanswered, outcome: 'failed' as const, code: 'no-model', weight: 1 },
        ...{ model: { name: 'flowers', version: null }, revision: null },
      },
    ];
    const documents = records.map((one) => predictionDocument(one, namespace));
    expect(await search.store(documents, AbortSignal.timeout(20_000))).toEqual([]);
    expect(await search.store(documents, AbortSignal.timeout(20_000))).toEqual([]);
    const index = streamName('predictions', 'predict', namespace);
    expect(await count(index)).toBe(92);
    const client = await search.client();
    const { aggregations } = await client.search({
      index,
      size: 0,
      aggs: {
        outcomes: {
          terms: { field: 'ml.prediction.outcome' },
          aggs: {
            predictions: { sum: { field: 'ml.prediction.weight' } },
            score: { avg: { field: 'ml.prediction.score' } },
            codes: { terms: { field: 'error.code' } },
            failures: { filter: { term: { 'event.outcome': 'failure' } } },
            revisions: { terms: { field: 'faas.version' } },
          },
        },
        versions: {
          terms: { field: 'ml.model.version' },
          aggs: {
            grass: { filter: { term: { 'ml.prediction.label': 'grass' } } },
            margin: { avg: { field: 'ml.prediction.margin' } },
            brightness: { max: { field: 'ml.input.brightness' } },
          },
        },
      },
    });
    expect(aggregations?.outcomes).toMatchObject({
      buckets: [
        {
          ...{ key: 'answered', predictions: { value: 900 }, score: { value: 0.75 } },
          revisions: { buckets: [{ key: 'predict-00001', doc_count: 90 }] },
        },
        {
          ...{ key: 'failed', predictions: { value: 1 }, score: { value: null } },
          ...{ codes: { buckets: [{ key: 'no-model' }] }, failures: { doc_count: 1 } },
          revisions: { buckets: [] },
        },
        {
          ...{ key: 'refused', predictions: { value: 10 }, failures: { doc_count: 0 } },
          codes: { buckets: [{ key: 'not-an-image' }] },
        },
      ],
    });
    expect(aggregations?.versions).toMatchObject({
      buckets: [
        {
          key: 'v0000000001',
          doc_count: 60,
          grass: { doc_count: 20 },
          margin: { value: 0.5 },
          brightness: { value: 1 },
        },
        { key: 'v0000000002', doc_count: 31, grass: { doc_count: 10 }, brightness: { value: 0.5 } },
      ],
    });
    const streams = await client.indices.getDataStream({ name: index });
    expect(streams.data_streams[0]).toMatchObject({ template: 'dandelion-predictions' });
  });

  test('a document that does not fit is refused alone; a field that does not fit is left out', async () => {
    const stream = streamName('logs', 'poison', namespace);
    const documents = [
      { '@timestamp': '2030-01-01T00:00:00Z', message: 'good' },
      { '@timestamp': '2030-01-01T00:00:01Z', message: { an: 'object' } },
      { '@timestamp': '2030-01-01T00:00:02Z', message: 'good', event: { duration: 'long' } },
      { message: 'without a time' },
    ].map((document, place) => ({ stream, id: `${place}`, json: JSON.stringify(document) }));
    const refused = await search.store(documents, AbortSignal.timeout(20_000));
    expect(refused.map(({ document }) => document.id)).toEqual(['1', '3']);
    expect(refused[0]?.reason).toMatch(/document_parsing_exception/);
    expect(await count(stream)).toBe(2);
  });

  test('10 000 documents through a connection cut again and again: none lost, none twice', async () => {
    const way = await openWay(url);
    const through = openAt(way.url);
    const said: string[] = [];
    const say = (sentence: string) => said.push(sentence);
    const writer = createSearchWriter({ search: through, say, batchDocuments: 200, flushAfterMs: 50 });
    const stream = streamName('logs', 'load', namespace);
    for (let place = 0; place < 10_000; place++) {
      const json = JSON.stringify({ '@timestamp': '2030-01-01T00:00:00Z', message: `line ${place}`, place });
      expect(writer.offer({ stream, id: `line-${place}`, json })).toBe(true);
      if (place % 1000 === 999) {
        await delay(100);
        way.cut();
      }
    }
    await writer.close(AbortSignal.timeout(40_000));
    expect(writer.counts()).toEqual({ stored: 10_000, refused: 0, dropped: 0 });
    expect(await count(stream)).toBe(10_000);
    expect(said.length).toBeGreaterThan(0);
    through.close();
    await way.close();
  }, 90_000);
});
