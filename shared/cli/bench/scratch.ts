import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import postgres from 'postgres';
import type { Stage } from './stage.ts';

/** Empty stores for one round: what is measured finds nothing done before. */
export interface Scratch {
  folder: string;
  /** Environment of a function that works on them. */
  env: Record<string, string | undefined>;
}

/** Makes a database on the platform's server and folders beside it, and removes both when the work is done. */
export async function withScratch<Result>(
  stage: Stage,
  work: (scratch: Scratch) => Promise<Result>,
): Promise<Result> {
  const { databaseUrl } = stage.platform;
  const url = new URL(databaseUrl);
  url.pathname = '/bench_scratch';
  const admin = postgres(databaseUrl, { max: 1, onnotice: () => {} });
  const folder = await mkdtemp(join(stage.options.dataDir, 'scratch-'));
  const dropDatabase = () => admin.unsafe('drop database if exists bench_scratch with (force)');
  try {
    // A bench that was killed may have left one.
    await dropDatabase();
    await admin.unsafe('create database bench_scratch');
    const folders = { OBJECTS_DIR: join(folder, 'objects'), TRACKING_DIR: join(folder, 'tracking') };
    return await work({ folder, env: { ...stage.env, ...folders, DATABASE_URL: url.href } });
  } finally {
    await dropDatabase();
    await admin.end();
    await rm(folder, { recursive: true, force: true });
  }
}
