import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@elastic/elasticsearch';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { z } from 'zod';
import type { Event } from '../events.ts';
import { openMlflowClient } from '../stores/mlflow-client.ts';
import { streamName } from '../stores/search-documents.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { describeService, type ServiceVariable } from '../stores/testing-services.ts';
import { openWay, type Way } from '../stores/testing-way.ts';
import { drawPhoto } from '../vision/drawn.ts';
import { type PipelineFunction, pipelineFunctions, readChain } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import {
  auditPipeline,
  drawFolder,
  type PhotoCounts,
  quickPipelineEnv,
  requestFor,
  waitForPipeline,
} from './testing-pipelines.ts';

const classes: PhotoCounts = { dandelion: 20, grass: 20 };
const patienceMs = 120_000;
const awayMs = 1500;
/** What a test waits for says what did not come; only then is the test itself given up. */
const testTimeoutMs = 3 * patienceMs;

/**
 * A real server behind a way that is shut and opened again: to everyone who uses it, a server that is killed and
 * restarted. PostgreSQL itself is stopped and started in the middle of steps by outage.test.ts.
 */
function describeOutage(
  variable: Exclude<ServiceVariable, 'KUBECONFIG'>,
  serverUrl: () => string,
  steps: readonly PipelineFunction[],
): void {
  const run = randomBytes(4).toString('hex');
  const served = `away-${run}`;
  let folder: string;
  let database: TestDatabase;
  let way: Way;
  let platform: Platform;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'dandelion-away-'));
    await drawFolder(join(folder, 'photos'), classes, 1);
    database = await testDatabase();
    way = await openWay(variable === 'DATABASE_URL' ? database.url : serverUrl());
    const elsewhere = {
      S3_ENDPOINT: undefined,
      MLFLOW_TRACKING_URI: undefined,
      ELASTICSEARCH_URL: undefined,
    };
    const names = { MODEL_NAME: served, S3_BUCKET: served, ELASTICSEARCH_NAMESPACE: `away${run}` };
    const env = {
      ...(await quickPipelineEnv(folder)),
      ...{ ...elsewhere, ...names, DATABASE_URL: database.url, [variable]: way.url },
      PREDICTION_LOG_FLUSH_MS: '200',
    };
    platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
  });
  afterAll(async () => {
    await way?.open();
    await platform?.stop();
    await way?.close();
    await database?.drop();
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  });

  const ask = (model: string) => requestFor(model, join(folder, 'photos'));
  const audit = (request: ReturnType<typeof ask>) => {
    const tracking = { trackingDir: join(folder, 'data/tracking') };
    const server =
      variable === 'MLFLOW_TRACKING_URI'
        ? { mlflow: openMlflowClient({ MLFLOW_TRACKING_URI: serverUrl() }) }
        : {};
    return auditPipeline({ ...platform, ...tracking, ...server, database: database.db }, request, classes);
  };

  test.each(steps)(
    'in the middle of %s loses and doubles nothing',
    { timeout: testTimeoutMs },
    async (name) => {
      const request = ask(`away-${run}-${name}`);
      await platform.broker.publish(request);
      const isRunning = async () =>
        (await readChain(database.db, request)).some(
          (link) => link.function === name && link.run?.status === 'running',
        );
      await expect.poll(isRunning, { timeout: patienceMs, interval: 3 }).toBe(true);
      await way.shut();
      await sleep(awayMs);
      await way.open();
      await waitForPipeline(database.db, request, patienceMs);
      expect(await audit(request)).toEqual([]);
    },
  );

  test.each(steps.slice(-2, -1))(
    'for longer than %s is patient is named by it, and once it is back the pipeline ends well',
    { timeout: testTimeoutMs },
    async (name) => {
      const request = ask(`away-${run}-long`);
      const before = pipelineFunctions[pipelineFunctions.indexOf(name) - 1];
      const end = platform.broker.onResult((result) => {
        if (result.function === before && modelOf(result.event) === request.subject) void way.shut();
      });
      await platform.broker.publish(request);
      const problem = async () =>
        (await readChain(database.db, request)).find((link) => link.function === name)?.run?.problem;
      await expect.poll(problem, { timeout: patienceMs }).toMatchObject({
        code: 'store-unavailable',
        detail: expect.stringContaining(new URL(way.url).host),
      });
      end();
      await way.open();
      await waitForPipeline(database.db, request, patienceMs);
      expect(await audit(request)).toEqual([]);
    },
  );

  test('under load costs no answer, and every answer is told once', { timeout: testTimeoutMs }, async () => {
    const request = ask(served);
    await platform.broker.publish(request);
    await waitForPipeline(database.db, request, patienceMs);
    const load = startLoad(`${platform.gatewayUrl}/function/predict/`, await drawPhoto('grass', 99));
    await load.answers(20);
    await way.shut();
    await sleep(2 * awayMs);
    await load.answers(20);
    await way.open();
    await load.answers(20);
    const statuses = await load.stop();
    expect(statuses.filter((status) => status !== 200)).toEqual([]);

    const kept = async () => {
      const [row] = await database.db<{ count: number }[]>`
        select count(*)::int as count from predictions where outcome = 'answered'`;
      return row?.count;
    };
    await expect.poll(kept, { timeout: patienceMs, interval: 100 }).toBe(statuses.length);
    if (variable === 'ELASTICSEARCH_URL') {
      const found = () => countDocuments(serverUrl(), streamName('predictions', 'predict', `away${run}`));
      await expect.poll(found, { timeout: patienceMs, interval: 500 }).toBe(statuses.length);
    }
  });
}

/** The model that a pipeline's event is about. */
function modelOf(event: Event): string | undefined {
  return z.object({ model: z.string() }).safeParse(event.data).data?.model;
}

/** Two clients that ask again as soon as they are answered. */
function startLoad(url: string, photo: Uint8Array) {
  const statuses: number[] = [];
  let stopped = false;
  const client = async () => {
    while (!stopped) {
      const headers = { 'content-type': 'image/jpeg' };
      const answer = await fetch(url, { method: 'POST', headers, body: new Uint8Array(photo) });
      await answer.arrayBuffer();
      statuses.push(answer.status);
    }
  };
  const clients = Promise.all([client(), client()]);
  return {
    /** Resolves after so many more answers, whatever they say. */
    async answers(count: number) {
      const wanted = statuses.length + count;
      await expect.poll(() => statuses.length, { timeout: patienceMs }).toBeGreaterThan(wanted);
    },
    async stop() {
      stopped = true;
      await clients;
      return statuses;
    },
  };
}

async function countDocuments(node: string, index: string): Promise<number> {
  const client = new Client({ node });
  try {
    await client.indices.refresh({ index });
    return (await client.count({ index })).count;
  } finally {
    await client.close();
  }
}

describeService('S3_ENDPOINT', 'an S3 server that goes away', (url) =>
  describeOutage('S3_ENDPOINT', () => url, pipelineFunctions),
);
describeService('MLFLOW_TRACKING_URI', 'an MLflow server that goes away', (url) =>
  describeOutage('MLFLOW_TRACKING_URI', () => url, ['train', 'evaluate', 'deploy']),
);
describeService('ELASTICSEARCH_URL', 'an Elasticsearch that goes away', (url) =>
  describeOutage('ELASTICSEARCH_URL', () => url, ['ingest']),
);
describe('a PostgreSQL that goes away', () =>
  describeOutage('DATABASE_URL', () => inject('databaseUrl'), []));
