import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { runKillRounds } from './kill-rounds.ts';

let folder: string;
let database: TestDatabase;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-kill-rounds-'));
  database = await testDatabase();
});
afterAll(async () => {
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

test('functions killed at random moments lose, double and leave unfinished nothing', async () => {
  const lines: string[] = [];
  const say = (line: string) => void lines.push(line);
  const env = { DATABASE_URL: database.url };
  const rounds = await runKillRounds({ pipelines: 3, seed: 5, folder, say, env });
  expect(rounds).toMatchObject({ pipelines: 3, faults: [] });
  expect(rounds.kills, lines.join('\n')).toBeGreaterThan(0);
}, 400_000);
