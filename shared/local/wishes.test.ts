import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readDeployment } from '../stores/deployments.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { type Platform, startPlatform } from './platform.ts';
import { drawFolder, quickPipelineEnv, requestFor, waitForPipeline } from './testing-pipelines.ts';

let folder: string;
let database: TestDatabase;
let platform: Platform;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-wishes-'));
  database = await testDatabase();
  await drawFolder(join(folder, 'photos'), { dandelion: 20, grass: 20 }, 1);
  const env = { ...(await quickPipelineEnv(folder)), DATABASE_URL: database.url };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
});
afterAll(async () => {
  await platform?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

test('what a request wishes of the canary reaches deploy, over every step between', async () => {
  const request = requestFor('wished', join(folder, 'photos'));
  const canary = { shares: [5, 100], minSamples: 7 };
  const wish = { ...request, data: { ...(request.data as object), force: true, canary } };
  await platform.broker.publish(wish);
  const runs = await waitForPipeline(platform.database, wish, 60_000);
  expect(runs.evaluate?.result?.data).toMatchObject({ canary });
  const deployment = await readDeployment(platform.database, runs.deploy?.id ?? '');
  expect(deployment?.policy).toMatchObject(canary);
});
