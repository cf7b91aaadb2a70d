import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeDataDir } from './data-folder.ts';
import { openLogFile } from './log-file.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-folder-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const refusal = (dataDir: string) =>
  expect(makeDataDir(dataDir)).rejects.toMatchObject({
    code: 'bad-config',
    message: expect.stringMatching(/cannot be used: .*choose another one with --data/),
  });

test('a data folder is made with those above it, and found again', async () => {
  const dataDir = join(folder, 'a/b/c');
  await makeDataDir(dataDir);
  await makeDataDir(dataDir);
  expect(await readdir(dataDir)).toEqual([]);
});

test('a data folder below a file is refused', async () => {
  await writeFile(join(folder, 'file'), '');
  await refusal(join(folder, 'file'));
  await refusal(join(folder, 'file/data'));
});

test.runIf(existsSync('/proc/self'))(
  'a data folder where none can be made or written to is refused',
  async () => {
    await refusal('/proc/dandelion/data');
    await refusal('/proc');
  },
);

test.runIf(existsSync('/dev/full'))('a log on a full disk drops lines; its owner goes on', () => {
  expect(() => openLogFile('/dev/full').append('a line\n')).not.toThrow();
});
