import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import type { Suite } from './stage.ts';
import { apiOutage } from './stages/api-outage.ts';
import { slowTraining } from './stages/slow-training.ts';
import { formatRows, hasPassed, measured, row, skipped } from './table.ts';

afterEach(() => vi.unstubAllEnvs());

/** All that a stage needs which finds out that it cannot run. */
function suiteThatHears(said: string[]): Suite {
  return { say: (sentence: string) => said.push(sentence), longMinutes: 0 } as unknown as Suite;
}

test('a stage without its commands is skipped with the reason, and does not pass', async () => {
  vi.stubEnv('E2E_PAUSE_API', undefined);
  const said: string[] = [];
  const rows = await apiOutage(suiteThatHears(said));
  expect(rows).toMatchObject([
    { outcome: 'skipped', goal: expect.stringMatching(/E2E_PAUSE_API.*E2E_RESUME_API/) },
  ]);
  expect(said.join()).toContain('SKIPPED');
  expect(hasPassed(rows)).toBe(false);
});

test('the training of many minutes that nobody asked for is skipped with the reason', async () => {
  const rows = await slowTraining(suiteThatHears([]));
  expect(rows).toMatchObject([{ outcome: 'skipped', goal: expect.stringContaining('--long-minutes') }]);
});

test('the table names what was skipped and counts it apart from what passed', () => {
  const rows = [row('one', 1, '1', true), skipped('other', 'set OTHER'), measured('a figure', '3 ms')];
  const table = formatRows(rows).split('\n');
  expect(table[2]).toMatch(/^other +not run +set OTHER +SKIPPED$/);
  expect(table.at(-1)).toBe('1 passed, 0 failed, 1 skipped');
  expect(hasPassed(rows)).toBe(true);
  expect(hasPassed([...rows, row('third', 1, '0', false)])).toBe(false);
});

test.each([
  [['nosuch'], 'There is no stage nosuch'],
  [['--nosuch'], "Unknown option '--nosuch'"],
  [['--cycles', 'many'], '--cycles many: give a whole number'],
  [['--long-minutes', 'x'], '--long-minutes x: give a whole number'],
])('the command line %j is refused with or without a cluster', async (words, sentence) => {
  const env = { ...process.env, CI: '', KUBECONFIG: undefined };
  const script = join(import.meta.dirname, 'main.ts');
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(process.execPath, [script, ...words], { env }, (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    );
  });
  expect(code).toBe(2);
  expect(stderr).toContain(sentence);
});
