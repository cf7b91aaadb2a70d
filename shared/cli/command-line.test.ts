import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';

test.each([
  ['kibana', ['--nosuch'], "Unknown option '--nosuch'"],
  ['kibana', ['--wait', 'long'], '--wait long: give a whole number'],
  ['drift-simulation', ['--nosuch'], "Unknown option '--nosuch'"],
  ['drift-simulation', ['--models', '0'], '--models 0: give a whole number of at least 1'],
  ['drift-simulation', ['--window', ''], '--window : give a whole number of at least 1'],
  ['kill-suite', ['extra'], "Unexpected argument 'extra'"],
])('npm run %s -- %j says what is wrong and ends with 2', async (command, words, sentence) => {
  const script = join(import.meta.dirname, `${command}.ts`);
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(process.execPath, [script, ...words], (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    );
  });
  expect(stderr).toContain(sentence);
  expect(code).toBe(2);
});
