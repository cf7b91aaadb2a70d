import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { type Database, openDatabase } from './database.ts';
import { type ObjectStore, openObjects } from './objects.ts';

/** A database of a test's own on a real server. */
export interface TestDatabase {
  url: string;
  db: Database;
  drop(): Promise<void>;
}

/**
 * Creates an empty database on the server of `TEST_DATABASE_URL` (set by the test run's set-up, or by hand).
 *
 * @throws Error when there is no server: database tests are never skipped in silence
 */
export async function emptyDatabase(): Promise<{ name: string; url: string; drop(): Promise<void> }> {
  const serverUrl = process.env.TEST_DATABASE_URL;
  if (serverUrl === undefined) throw new Error('TEST_DATABASE_URL is not set: run the tests through vitest.');
  const name = `test_${randomBytes(6).toString('hex')}`;
  const admin = postgres(serverUrl, { max: 1, onnotice: () => {} });
  await admin.unsafe(`create database ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const drop = async () => {
    await admin.unsafe(`drop database ${name} with (force)`);
    await admin.end();
  };
  return { name, url: url.href, drop };
}

/** Creates a fresh, migrated database; as {@link emptyDatabase}. */
export async function testDatabase(): Promise<TestDatabase> {
  const { url, drop } = await emptyDatabase();
  const db = await openDatabase(url);
  return {
    url,
    db,
    async drop() {
      await db.end({ timeout: 5 });
      await drop();
    },
  };
}

/** Everything a pipeline function stands on, made for one test: database, object store and tracking folders. */
export interface TestStores extends TestDatabase {
  objects: ObjectStore;
  directory: string;
  env: Record<string, string>;
}

/** A fresh database and empty folders, with the environment a function needs to find them. */
export async function testStores(): Promise<TestStores> {
  const database = await testDatabase();
  const directory = await mkdtemp(join(tmpdir(), 'dandelion-test-'));
  const env = {
    DATABASE_URL: database.url,
    OBJECTS_DIR: join(directory, 'objects'),
    TRACKING_DIR: join(directory, 'tracking'),
  };
  const drop = async () => {
    await database.drop();
    await rm(directory, { recursive: true, force: true });
  };
  return { ...database, drop, directory, env, objects: openObjects(env) };
}
