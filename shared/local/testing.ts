import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startPostgres } from './postgres.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Administrator URL of the PostgreSQL server of this test run. */
    databaseUrl: string;
  }
}

/**
 * Vitest's global set-up: one embedded PostgreSQL for the whole run, unless TEST_DATABASE_URL names a server.
 *
 * Tests find its URL as `inject('databaseUrl')` and in TEST_DATABASE_URL.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.TEST_DATABASE_URL;
  if (given !== undefined && given !== '') {
    project.provide('databaseUrl', given);
    return async () => {};
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'dandelion-postgres-'));
  const server = await startPostgres({ dataDir, durable: false });
  project.provide('databaseUrl', server.url);
  process.env.TEST_DATABASE_URL = server.url;
  return async () => {
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
}
