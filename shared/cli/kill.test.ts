import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import type { PipelineFunction } from '../local/pipeline.ts';
import { startPostgres } from '../local/postgres.ts';
import { auditPipeline, drawFolder, type PhotoCounts, quickPipelineEnv } from '../local/testing-pipelines.ts';
import { openDatabase } from '../stores/database.ts';
import { openObjects } from '../stores/objects.ts';
import { endStarted, launchStart, runStart } from './testing-start.ts';

const classes: PhotoCounts = { dandelion: 20, grass: 20 };

let folder: string;
let env: Record<string, string>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-platform-kill-'));
  await drawFolder(join(folder, 'photos'), classes, 1);
  // No lease ends within this test: whoever goes on must know that nobody else does.
  env = { ...(await quickPipelineEnv(folder)), LEASE_MS: '3600000' };
});
afterEach(endStarted);
afterEach(() => rm(folder, { recursive: true, force: true }));

const readText = (...path: string[]) => readFile(join(folder, 'data', ...path), 'utf8').catch(() => '');

/** Process ids of the functions the platform has started, by its log. */
async function functionProcesses(): Promise<Map<string, number>> {
  const log = await readText('logs/platform.log');
  const lines = log.matchAll(/"message":"(\w+) runs as process (\d+)"/g);
  return new Map([...lines].map(([, name = '', processId]) => [name, Number(processId)]));
}

function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch {
    return false;
  }
}

/** Holds what the data folder keeps against what one pipeline should leave. */
async function audit() {
  const server = await startPostgres({ dataDir: join(folder, 'data/postgres') });
  const database = await openDatabase(server.url);
  try {
    const [row] = await database<{ event: Event }[]>`select event from steps where function = 'ingest'`;
    if (row === undefined) throw new Error('the ledger has no ingest');
    const stores = {
      database,
      objects: openObjects({ OBJECTS_DIR: join(folder, 'data/objects') }),
      trackingDir: join(folder, 'data/tracking'),
    };
    return await auditPipeline(stores, row.event, classes);
  } finally {
    await database.end();
    await server.stop();
  }
}

test('kill -9 of the whole platform, twice: no process is left, and the next start goes on to one whole model', async () => {
  const words = ['--images', join(folder, 'photos')];
  for (const name of ['preprocess', 'evaluate'] satisfies PipelineFunction[]) {
    const data = ['--data', join(folder, 'data'), '--port', '0', '--once'];
    const started = launchStart([...words, ...data], env);
    await expect.poll(async () => (await functionProcesses()).has(name), { timeout: 60_000 }).toBe(true);
    const database = Number((await readText('postgres/cluster/postmaster.pid')).split('\n')[0]);
    const functions = [...(await functionProcesses()).values()];
    started.child.kill('SIGKILL');
    await started.ended;
    expect(database).toBeGreaterThan(1);
    const left = () => [database, ...functions].filter(isAlive);
    await expect.poll(left, { timeout: 30_000 }).toEqual([]);
  }
  const last = await runStart(folder, words, env);
  expect([last.code, last.output]).toEqual([0, expect.stringContaining('serves')]);
  expect(last.report).toMatchObject({ ok: true, dataset: { images: 40, rejected: [] } });
  expect(await audit()).toEqual([]);
}, 180_000);
