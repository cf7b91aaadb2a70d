import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { type PipelineFunction, pipelineFunctions } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import {
  auditPipeline,
  drawFolder,
  type PhotoCounts,
  type PipelineStores,
  quickPipelineEnv,
  requestFor,
  waitForPipeline,
} from './testing-pipelines.ts';

const classes: PhotoCounts = { dandelion: 20, grass: 20 };
const patienceMs = 45_000;

let folder: string;
let database: TestDatabase;
let platform: Platform;
let stores: PipelineStores;
/** A connection of its own, so that looking for the moment to kill waits for nobody. */
let watcher: postgres.Sql;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-kill-'));
  database = await testDatabase();
  watcher = postgres(database.url, { max: 1 });
  await drawFolder(join(folder, 'photos'), classes, 1);
  const env = { ...(await quickPipelineEnv(folder)), DATABASE_URL: database.url };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
  stores = { ...platform, trackingDir: join(folder, 'data/tracking') };
});
afterAll(async () => {
  await watcher?.end();
  await platform?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

/** Kills the process of a function in the moment the ledger says that it works on the model's step. */
async function killWhileRunning(name: PipelineFunction, model: string): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    const running = await watcher`
      select 1 from steps where function = ${name} and status = 'running'
        and coalesce(event -> 'data' -> 'model' ->> 'name', event -> 'data' ->> 'model') = ${model}`;
    const found = platform.processes.running().find((each) => each.name === name);
    if (running.length === 0 || found === undefined) continue;
    process.kill(found.processId, 'SIGKILL');
    return;
  }
  throw new Error(`${name} did not run within ${patienceMs} ms`);
}

async function runWithKill(name: PipelineFunction, model: string) {
  const request: Event = requestFor(model, join(folder, 'photos'));
  const killed = killWhileRunning(name, model);
  await platform.broker.publish(request);
  await killed;
  const runs = await waitForPipeline(platform.database, request, patienceMs);
  return { request, runs };
}

describe('kill -9 of a function in the middle of its step', () => {
  test.each(pipelineFunctions)('%s is worked again, and leaves everything once', async (name) => {
    // A step may end between the look and the kill; then the next pipeline is struck.
    for (let round = 1; ; round++) {
      const { request, runs } = await runWithKill(name, `${name}-${round}`);
      expect(await auditPipeline(stores, request, classes)).toEqual([]);
      for (const other of pipelineFunctions) {
        if (other !== name) expect([other, runs[other]?.attempt]).toEqual([other, 1]);
      }
      if (runs[name]?.attempt === 2) break;
      expect(round, `${name} ended before it could be killed`).toBeLessThan(4);
    }
  });
});
