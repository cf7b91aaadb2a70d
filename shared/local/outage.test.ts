import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type PipelineFunction, readChain } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import { type RunningPostgres, startPostgres } from './postgres.ts';
import {
  auditPipeline,
  drawFolder,
  type PhotoCounts,
  quickPipelineEnv,
  requestFor,
  waitForPipeline,
} from './testing-pipelines.ts';

const classes: PhotoCounts = { dandelion: 20, grass: 20 };
const patienceMs = 60_000;

let folder: string;
let port: number;
let server: RunningPostgres;
let platform: Platform;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-outage-'));
  await drawFolder(join(folder, 'photos'), classes, 1);
  port = await freePort();
  server = await startServer();
  const env = { ...(await quickPipelineEnv(folder)), DATABASE_URL: server.url };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
});
afterAll(async () => {
  await platform?.stop();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

const startServer = () => startPostgres({ dataDir: join(folder, 'postgres'), port, durable: false });

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

describe('a database that is restarted', () => {
  test.each<[PipelineFunction, number]>([
    ['ingest', 0],
    ['preprocess', 1500],
    ['train', 0],
    ['evaluate', 500],
  ])(
    'in the middle of %s, away for %i ms, loses and doubles nothing; the functions live on',
    async (name, awayMs) => {
      const request = requestFor(`outage-${name}`, join(folder, 'photos'));
      await platform.broker.publish(request);
      const isRunning = async () => {
        const chain = await readChain(platform.database, request);
        return chain.some((link) => link.function === name && link.run?.status === 'running');
      };
      await expect.poll(isRunning, { timeout: patienceMs, interval: 3 }).toBe(true);
      const before = platform.processes.running().map(({ processId }) => processId);
      await server.stop();
      await sleep(awayMs);
      server = await startServer();
      await waitForPipeline(platform.database, request, patienceMs);
      const stores = { ...platform, trackingDir: join(folder, 'data/tracking') };
      expect(await auditPipeline(stores, request, classes)).toEqual([]);
      const after = platform.processes.running().map(({ processId }) => processId);
      expect(after).toEqual(expect.arrayContaining(before));
    },
  );
});
