import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ObjectStore, openObjects } from './objects.ts';

let directory: string;
let objects: ObjectStore;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-objects-'));
  objects = openObjects({ OBJECTS_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

describe('the file object store', () => {
  it('gives back what was put, with its digest', async () => {
    const { digest } = await objects.put('images/a', Buffer.from('hello'));
    expect(digest).toBe('2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
    expect((await objects.get('images/a')).bytes.toString()).toBe('hello');
    expect(await objects.head('images/a')).toMatchObject({ sizeBytes: 5 });
  });

  it('says which object is missing', async () => {
    await expect(objects.get('images/none')).rejects.toMatchObject({ code: 'object-missing' });
    await expect(objects.get('images/none')).rejects.toThrow('images/none');
    expect(await objects.head('images/none')).toBeUndefined();
  });

  it('lists by prefix and forgets what was deleted', async () => {
    await objects.put('list/b/1', Buffer.from('1'));
    await objects.put('list/b/2', Buffer.from('22'));
    await objects.put('list/c', Buffer.from('3'));
    const keys = async () => {
      const found: string[] = [];
      for await (const { key } of objects.list('list/b')) found.push(key);
      return found;
    };
    expect(await keys()).toEqual(['list/b/1', 'list/b/2']);
    await objects.delete('list/b/1');
    await objects.delete('list/b/1');
    expect(await keys()).toEqual(['list/b/2']);
  });

  it.each(['../secret', '/etc/passwd', 'a/../../b', 'a//b', '', 'a/.hidden', 'a\\b', 'a\u0000'])(
    'refuses the key %j',
    async (key) => {
      await expect(objects.put(key, Buffer.from('x'))).rejects.toMatchObject({ code: 'bad-request' });
    },
  );

  it('lets one of many racing writers create a pointer', async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 16 }, (_, writer) =>
        objects.putIf('pointer', Buffer.from(`writer ${writer}`), { etag: null }),
      ),
    );
    expect(outcomes.filter(({ won }) => won)).toHaveLength(1);
  });

  it('moves a pointer only for who saw its present value', async () => {
    const { etag } = await objects.get('pointer');
    expect((await objects.putIf('pointer', Buffer.from('second'), { etag })).won).toBe(true);
    expect((await objects.putIf('pointer', Buffer.from('third'), { etag })).won).toBe(false);
    expect((await objects.get('pointer')).bytes.toString()).toBe('second');
  });

  it('breaks the lock of a process that is gone', async () => {
    await objects.putIf('locked', Buffer.from('1'), { etag: null });
    await writeFile(join(directory, '.locks', 'locked~99'), `999999999 ${hostname()}`);
    const { etag } = await objects.get('locked');
    expect((await objects.putIf('locked', Buffer.from('2'), { etag })).won).toBe(true);
  });

  it('leaves no drafts behind', async () => {
    expect(await readdir(join(directory, '.drafts'))).toEqual([]);
  });
});

it('removes drafts that a killed process left, and none that is being written', async () => {
  const root = join(directory, 'with-drafts');
  const [left, fresh] = [join(root, '.drafts/left'), join(root, '.drafts/fresh')];
  await mkdir(join(root, '.drafts'), { recursive: true });
  await Promise.all([writeFile(left, 'half'), writeFile(fresh, 'half')]);
  const yesterday = new Date(Date.now() - 86_400_000);
  await utimes(left, yesterday, yesterday);
  await openObjects({ OBJECTS_DIR: root }).put('images/a', Buffer.from('whole'));
  expect(await readdir(join(root, '.drafts'))).toEqual(['fresh']);
});
