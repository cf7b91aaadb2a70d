import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { errorCodeOf, hasErrorCode } from './system-errors.ts';

it('tells the errors of the operating system by their codes, and others by none', async () => {
  const missing = await readFile('/nowhere/at-all').catch((error: unknown) => error);
  expect(errorCodeOf(missing)).toBe('ENOENT');
  expect(hasErrorCode(missing, 'ENOTDIR', 'ENOENT')).toBe(true);
  expect(hasErrorCode(missing, 'EACCES')).toBe(false);
  expect([errorCodeOf(new Error('plain')), errorCodeOf('ENOENT'), errorCodeOf(undefined)]).toEqual([
    '',
    '',
    '',
  ]);
});
