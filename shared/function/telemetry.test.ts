import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type BulkServer, startBulkServer } from '../stores/testing-search.ts';
import { createLogger, functionLogger } from './log.ts';
import { createMetrics } from './metrics.ts';
import { openTelemetry, type TelemetryOptions } from './telemetry.ts';

let server: BulkServer;
let lines: string[];

beforeEach(async () => {
  server = await startBulkServer();
  lines = [];
});
afterEach(() => server.close());

const destination = { write: (line: string) => void lines.push(line) };
const log = createLogger({ name: 'predict', destination });
const inTime = () => AbortSignal.timeout(10_000);

function open(env: Record<string, string> = {}, more: Partial<TelemetryOptions> = {}) {
  const telemetry = openTelemetry({
    ...{ name: 'predict', instanceId: 'pod-1', log },
    env: { ELASTICSEARCH_URL: server.url, ...env },
    ...more,
  });
  if (telemetry === undefined) throw new Error('no telemetry');
  return telemetry;
}

function documents(stream: 'logs' | 'metrics') {
  const all = [...server.stored.values()].map((json) => JSON.parse(json) as Record<string, unknown>);
  return all.filter(({ data_stream }) => (data_stream as { type: string }).type === stream);
}

describe('telemetry', () => {
  test('is absent without an address, and refuses a wrong one by name', () => {
    expect(openTelemetry({ name: 'predict', instanceId: 'pod-1', log, env: {} })).toBeUndefined();
    expect(() => open({ ELASTICSEARCH_URL: 'elasticsearch:9200' })).toThrow(/ELASTICSEARCH_URL/);
  });

  test('log lines go to standard output and, with their trace, to Elasticsearch', async () => {
    const telemetry = open();
    const logger = createLogger({ name: 'predict', destination, copyTo: telemetry.copyLine });
    const call = functionLogger(logger, 'predict').child({ 'trace.id': 'a'.repeat(32) });
    call.info({ 'event.duration': 5 }, 'said "so"\nand more');
    await telemetry.close(inTime());
    expect(lines).toHaveLength(1);
    expect(documents('logs')).toEqual([
      {
        data_stream: { type: 'logs', dataset: 'dandelion.predict', namespace: 'default' },
        ...(JSON.parse(lines[0] ?? '') as object),
      },
    ]);
    expect(documents('logs')[0]).toMatchObject({
      'trace.id': 'a'.repeat(32),
      'faas.name': 'predict',
      message: 'said "so"\nand more',
    });
  });

  test('log lines stay here when an agent brings them', async () => {
    const telemetry = open({ LOGS_TO_ELASTICSEARCH: 'false' });
    expect(telemetry.copyLine).toBeUndefined();
    telemetry.reportMetrics(
      createMetrics('predict', () => 0, telemetry.counts),
      undefined,
    );
    await telemetry.close(inTime());
    expect(documents('metrics')).toHaveLength(1);
  });

  test('figures are differences that can be added up, written while the function works and at its end', async () => {
    const telemetry = open({}, { metricsEveryMs: 20 });
    const metrics = createMetrics('predict', () => 0, telemetry.counts);
    metrics.initialised(0.2);
    metrics.coldStart();
    metrics.invoked('http', 0.004);
    telemetry.reportMetrics(metrics, 'predict-00001');
    await new Promise((resolve) => setTimeout(resolve, 100));
    metrics.invoked('http', 0.5);
    metrics.failed(new Error('no'));
    await telemetry.close(inTime());
    const written = documents('metrics').map(({ dandelion }) => dandelion as Record<string, number>);
    const sum = (name: string) => written.reduce((total, figures) => total + (figures[name] ?? 0), 0);
    // The first, and the last; none for the time in which nothing happened.
    expect(written).toHaveLength(2);
    expect([sum('invocations'), sum('errors'), sum('coldstarts')]).toEqual([2, 1, 1]);
    expect(written[0]).toMatchObject({ init_ms: 200, duration: { count: 1, sum_ms: 4, le: { ms_5: 1 } } });
    expect(written[1]).toMatchObject({
      errors_by_code: { internal: 1 },
      duration: { count: 1, sum_ms: 500, le: { ms_250: 0, ms_500: 1, ms_inf: 1 } },
    });
    expect(documents('metrics')[1]).toMatchObject({
      faas: { name: 'predict', version: 'predict-00001' },
      service: { node: { name: 'pod-1' } },
    });
  });

  test('trouble with Elasticsearch is told on standard output and never to Elasticsearch', async () => {
    const telemetry = open();
    server.itemStatus = (json) => (json.includes('poisoned') ? 400 : 201);
    const logger = createLogger({ name: 'predict', destination, copyTo: telemetry.copyLine });
    logger.info('poisoned');
    logger.info('fine');
    await vi.waitFor(() => expect(lines).toHaveLength(3), 10_000);
    await telemetry.close(inTime());
    expect(lines[2]).toContain('documents were refused: status_400');
    expect(documents('logs').map(({ message }) => message)).toEqual(['fine']);
    expect(telemetry.counts()).toEqual({ stored: 1, refused: 1, dropped: 0 });
  });

  test('a server that is away costs a logger nothing but its own lines', async () => {
    const telemetry = open({ ELASTICSEARCH_URL: 'http://127.0.0.1:9' });
    const logger = createLogger({ name: randomUUID(), destination, copyTo: telemetry.copyLine });
    for (let line = 0; line < 20_000; line++) logger.info('a line');
    expect(lines).toHaveLength(20_000);
    expect(telemetry.counts()).toEqual({ stored: 0, refused: 0, dropped: 10_000 });
    await telemetry.close(AbortSignal.timeout(50));
    expect(telemetry.counts().dropped).toBe(20_000);
  });
});
