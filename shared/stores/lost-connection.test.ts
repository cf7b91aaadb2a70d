import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type TestDatabase, testDatabase } from './testing.ts';

let database: TestDatabase;
let child: ChildProcess;
let told = { done: 0, kept: 0 };
let complaints = '';

beforeEach(async () => {
  database = await testDatabase();
  const script = join(import.meta.dirname, 'testing-writer.ts');
  child = spawn(process.execPath, [script], { env: { ...process.env, DATABASE_URL: database.url } });
  child.stderr?.on('data', (chunk) => {
    complaints += String(chunk);
  });
  if (child.stdout === null) throw new Error('The writer has no output.');
  createInterface({ input: child.stdout }).on('line', (line) => {
    told = JSON.parse(line);
  });
});
afterEach(async () => {
  child.kill('SIGKILL');
  await database.drop();
});

test('a process whose connections are cut off again and again in the middle of its writes lives on', async () => {
  await expect.poll(() => told.done, { timeout: 30_000 }).toBeGreaterThan(0);
  const admin = postgres(database.url, { max: 1 });
  for (let round = 0; round < 400 && child.exitCode === null; round++) {
    await admin`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`;
    await sleep(round % 12);
  }
  expect([child.exitCode, complaints]).toEqual([null, '']);
  expect(told.kept).toBeGreaterThan(0);
  // It also writes again, and without much ado.
  const { done } = told;
  await expect.poll(() => told.done, { timeout: 30_000 }).toBeGreaterThan(done + 20);

  child.kill('SIGKILL');
  const [halves] = await admin`
    select
      (select count(*)::int from datasets d where (select count(*) from dataset_images i
        where i.model = d.model and i.version = d.version) <> 50) as datasets,
      (select count(*)::int from steps s where s.status = 'succeeded'
        and (select count(*) from outbox o where o.run = s.id) <> 2) as steps`;
  expect(halves).toEqual({ datasets: 0, steps: 0 });
  await admin.end();
});
