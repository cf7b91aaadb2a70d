import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Client } from '@elastic/elasticsearch';
import { expect, test } from 'vitest';
import { describeService } from '../stores/testing-services.ts';

const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));

describeService('ELASTICSEARCH_URL', "a function's telemetry", (node) => {
  test('the log lines and figures of a process are on the server once it has stopped', async () => {
    const namespace = `test${randomBytes(4).toString('hex')}`;
    const env = { PORT: '0', LOG_LEVEL: 'info', ELASTICSEARCH_URL: node, ELASTICSEARCH_NAMESPACE: namespace };
    const child = spawn(process.execPath, [entry, 'slow'], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const client = new Client({ node });
    const streams = {
      logs: `logs-dandelion.slow-${namespace}`,
      metrics: `metrics-dandelion.slow-${namespace}`,
    };
    try {
      const [{ listening }] = (await once(child, 'message')) as [{ listening: { port: number } }];
      const url = `http://127.0.0.1:${listening.port}`;
      await expect.poll(async () => (await fetch(`${url}/health/ready`)).status).toBe(200);
      const traceId = randomBytes(16).toString('hex');
      const headers = { traceparent: `00-${traceId}-00f067aa0ba902b7-01` };
      for (let call = 0; call < 3; call++)
        expect((await fetch(`${url}/?ms=1`, { headers })).status).toBe(200);
      child.kill('SIGTERM');
      await once(child, 'close');

      await client.indices.refresh({ index: Object.values(streams) });
      const calls = await client.count({ index: streams.logs, query: { term: { 'trace.id': traceId } } });
      expect(calls.count).toBe(3);
      const { aggregations } = await client.search({
        index: streams.metrics,
        size: 0,
        aggs: { invocations: { sum: { field: 'dandelion.invocations' } } },
      });
      expect(aggregations?.invocations).toMatchObject({ value: 3 });
    } finally {
      child.kill('SIGKILL');
      await client.indices.deleteDataStream({ name: Object.values(streams) }, { ignore: [404] });
      await client.close();
    }
  });
});
