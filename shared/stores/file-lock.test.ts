import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { lockFile } from './file-lock.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-lock-'));
  path = join(folder, 'locks/champion');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Twenty workers that each read a number and write the next: one lost lock is one lost number. */
async function countUnderLock(): Promise<number> {
  const counter = join(folder, 'counter');
  await writeFile(counter, '0');
  const count = async () => {
    const release = await lockFile(path);
    const before = Number(await readFile(counter, 'utf8'));
    await writeFile(counter, String(before + 1));
    await release();
  };
  await Promise.all(Array.from({ length: 20 }, count));
  return Number(await readFile(counter, 'utf8'));
}

test('one holder at a time, and one empty file left behind', async () => {
  expect(await countUnderLock()).toBe(20);
  const [left, ...more] = await readdir(join(folder, 'locks'));
  expect(more).toEqual([]);
  expect(await readFile(join(folder, 'locks', left ?? ''), 'utf8')).toBe('');
});

describe('a lock that was left goes to one of those who wait', () => {
  const longAgo = new Date(Date.now() - 60_000);
  const deadProcess = `${2 ** 30} ${hostname()}`;

  test.each([
    ['by a process that is dead', deadProcess, new Date()],
    ['by a process whose id is another program now', `1 ${hostname()}`, longAgo],
    ['by a process of another machine', '4711 elsewhere', longAgo],
  ])('%s', async (_name, content, madeAt) => {
    await mkdir(join(folder, 'locks'));
    for (const number of [7, 8]) {
      await writeFile(`${path}~${number}`, content);
      await utimes(`${path}~${number}`, madeAt, madeAt);
    }
    expect(await countUnderLock()).toBe(20);
    expect(await readdir(join(folder, 'locks'))).toEqual(['champion~28']);
  });
});

test('locks of other names are no matter', async () => {
  const release = await lockFile(path);
  const other = await lockFile(`${path}-of-another`);
  await Promise.all([release(), other()]);
  expect((await readdir(join(folder, 'locks'))).sort()).toEqual(['champion-of-another~1', 'champion~1']);
});
