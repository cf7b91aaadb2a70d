import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SourceAccess } from './entries.ts';
import { accessWith, readAll, tarOf } from './fixtures.ts';
import { openSource } from './source.ts';

let folder: string;
let access: SourceAccess;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-bucket-'));
  access = accessWith({ OBJECTS_DIR: folder, S3_BUCKET: 'flowers', INGEST_MAX_PHOTO_BYTES: '100' });
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const put = (key: string, text: string) => access.objects.put(key, Buffer.from(text));
const contents = async (kind: 'folder' | 'archive' | 'manifest', uri: string) => {
  const { photos, faults, total } = await readAll({ kind, uri }, access);
  return { total, photos: photos.sort((a, b) => (a.source < b.source ? -1 : 1)), faults };
};

describe('a folder of the bucket', () => {
  it('gives each object the name of its class folder', async () => {
    await put('incoming/dandelion/1.jpg', 'one');
    await put('incoming/dandelion/deep/IMG 2 (1).jpg', 'two');
    await put('incoming/tall grass/3.jpg', 'three');
    await put('incoming/stray.jpg', 'four');
    await put('images/abc', 'not in the folder');
    const expected = {
      total: 4,
      photos: [
        { source: 'dandelion/1.jpg', label: 'dandelion', text: 'one' },
        { source: 'dandelion/deep/IMG 2 (1).jpg', label: 'dandelion', text: 'two' },
        { source: 'tall grass/3.jpg', label: 'tall grass', text: 'three' },
      ],
      faults: [expect.objectContaining({ source: 'stray.jpg', code: 'bad-label' })],
    };
    expect(await contents('folder', 's3://flowers/incoming/')).toEqual(expected);
    expect(await contents('folder', 's3://flowers/incoming')).toEqual(expected);
  });

  it('passes over what systems leave behind, and refuses objects beyond the size limit', async () => {
    await put('incoming/grass/Thumbs.db', 'x');
    await put('incoming/grass/large.jpg', 'x'.repeat(101));
    const { photos, faults } = await contents('folder', 's3://flowers/incoming/');
    expect(photos).toEqual([]);
    expect(faults).toEqual([expect.objectContaining({ source: 'grass/large.jpg', code: 'image-too-large' })]);
  });

  it.each([
    ['s3://others/incoming/', 'address-refused', 's3://flowers/'],
    ['s3://flowers', 'bad-folder', 'name a folder'],
    ['s3://flowers/', 'bad-folder', 'name a folder'],
    ['s3://flowers/%zz/', 'address-refused', 'percent'],
  ])('%s is refused', async (uri, code, sentence) => {
    const opening = openSource({ kind: 'folder', uri }, access);
    await expect(opening).rejects.toMatchObject({ code, message: expect.stringContaining(sentence) });
  });

  it('is empty where nothing is', async () => {
    expect(await contents('folder', 's3://flowers/incoming/')).toEqual({ total: 0, photos: [], faults: [] });
  });
});

describe('an archive in the bucket', () => {
  it('is read as any other', async () => {
    const bytes = await tarOf([{ name: 'grass/1.jpg', bytes: Buffer.from('one') }]);
    await access.objects.put('archives/photos of May.tar', bytes);
    const { photos } = await contents('archive', 's3://flowers/archives/photos%20of%20May.tar');
    expect(photos).toEqual([{ source: 'grass/1.jpg', label: 'grass', text: 'one' }]);
  });

  it('says so when it is not there', async () => {
    const opening = openSource({ kind: 'archive', uri: 's3://flowers/archives/none.zip' }, access);
    await expect(opening).rejects.toMatchObject({ code: 'file-unreadable' });
  });
});

describe('a manifest in the bucket', () => {
  it('names objects relative to itself, and no other bucket', async () => {
    await put('incoming/grass/1.jpg', 'one');
    await put('incoming/list.csv', 'url,label\ngrass/1.jpg,grass\ns3://others/a.jpg,grass\nnone.jpg,grass\n');
    const { photos, faults } = await contents('manifest', 's3://flowers/incoming/list.csv');
    expect(photos).toEqual([{ source: 'grass/1.jpg', label: 'grass', text: 'one' }]);
    expect(faults.map(({ source, code }) => [source, code])).toEqual([
      ['s3://others/a.jpg', 'address-refused'],
      ['none.jpg', 'file-unreadable'],
    ]);
  });
});
