import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ObjectStore, openObjects } from './objects.ts';
import { describeObjectStore } from './testing-objects.ts';

let directory: string;
let objects: ObjectStore;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-objects-'));
  objects = openObjects({ OBJECTS_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function keysOf(prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of objects.list(prefix)) keys.push(key);
  return keys;
}

describeObjectStore('the object store in a folder', async () => objects);

describe('the object store in a folder', () => {
  it('breaks the lock of a process that is gone', async () => {
    await objects.putIf('locked', Buffer.from('1'), { etag: null });
    await writeFile(join(directory, '.locks', 'locked~99'), `999999999 ${hostname()}`);
    const { etag } = await objects.get('locked');
    expect((await objects.putIf('locked', Buffer.from('2'), { etag })).won).toBe(true);
  });

  it('says that it gives no upload addresses, and what to do instead', async () => {
    const asked = objects.presignPut('incoming/grass/1.jpg', { sizeBytes: 1, expiresMs: 1000 });
    await expect(asked).rejects.toMatchObject({
      code: 'uploads-unsupported',
      message: expect.stringMatching(/file:.*incoming\/grass\/1\.jpg.*S3_ENDPOINT/),
    });
  });

  it('tells trouble of the file system from objects that are missing', async () => {
    await mkdir(join(directory, 'trouble'));
    await symlink('loop', join(directory, 'trouble/loop'));
    const trouble = { code: 'store-unavailable', message: expect.stringContaining(directory) };
    await expect(objects.get('trouble/loop')).rejects.toMatchObject(trouble);
    await expect(objects.head('trouble/loop')).rejects.toMatchObject(trouble);
    await expect(keysOf('trouble/')).rejects.toMatchObject(trouble);
    await expect(objects.delete('trouble')).rejects.toMatchObject(trouble);
    await rm(join(directory, 'trouble'), { recursive: true });
  });

  it('lists past a file that vanishes meanwhile', async () => {
    await objects.put('vanishing/b', Buffer.from('b'));
    // Found in the folder and gone when it is looked at.
    await symlink('nowhere', join(directory, 'vanishing/a'));
    expect(await keysOf('vanishing/')).toEqual(['vanishing/b']);
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

describe('the choice of a store', () => {
  it('is a bad configuration when nothing is named', () => {
    const nothing = { code: 'bad-config', message: expect.stringMatching(/S3_ENDPOINT.*OBJECTS_DIR/) };
    expect(() => openObjects({})).toThrow(expect.objectContaining(nothing));
  });

  it('is S3 as soon as its address is set, a folder or not', () => {
    const settings = { S3_ENDPOINT: 'http://127.0.0.1:9', S3_BUCKET: 'flowers', OBJECTS_DIR: directory };
    expect(openObjects(settings)).toMatchObject({
      bucket: 'flowers',
      place: 'the bucket flowers at http://127.0.0.1:9',
    });
  });

  it('wants both halves of the credentials', () => {
    const settings = { S3_ENDPOINT: 'http://127.0.0.1:9', AWS_ACCESS_KEY_ID: 'me' };
    const half = { code: 'bad-config', message: expect.stringContaining('AWS_SECRET_ACCESS_KEY') };
    expect(() => openObjects(settings)).toThrow(expect.objectContaining(half));
  });
});
