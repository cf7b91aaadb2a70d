import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { accessWith, readAll, startSite, tarOf, zipOf } from './fixtures.ts';

let root: string;
let outside: string;

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'ingest-root-')));
  outside = await realpath(await mkdtemp(join(tmpdir(), 'ingest-outside-')));
});

afterEach(async () => {
  await rm(root, { recursive: true });
  await rm(outside, { recursive: true });
});

async function write(path: string, content: string | Uint8Array = path, base = root): Promise<string> {
  const full = join(base, path);
  await mkdir(dirname(full), { recursive: true });
  await writeFile(full, content);
  return full;
}

const urlOf = (path: string) => pathToFileURL(path).href;
const access = (settings: Record<string, string> = {}) =>
  accessWith({ INGEST_FILE_ROOTS: root, ...settings });
const labelled = (photos: { source: string; label: string }[]) =>
  photos.map(({ source, label }) => `${source} = ${label}`);

function codeOf(reading: Promise<unknown>): Promise<{ code: string; message: string }> {
  return reading.then(
    () => ({ code: 'read', message: '' }),
    (error) => ({ code: error.code, message: error.message }),
  );
}

describe('a folder', () => {
  const read = (path = root, settings = {}) =>
    readAll({ kind: 'folder', uri: urlOf(path) }, access(settings));

  it('gives each file the name of its class folder, however deep it lies', async () => {
    await write('grass/1.jpg');
    await write('grass/meadow/wide/2.jpg');
    await write('dandelion/3.PNG');
    const { photos, faults, total } = await read();
    expect(labelled(photos)).toEqual([
      'dandelion/3.PNG = dandelion',
      'grass/1.jpg = grass',
      'grass/meadow/wide/2.jpg = grass',
    ]);
    expect(faults).toEqual([]);
    expect(total).toBe(3);
  });

  it('finds the class folders below one wrapping folder', async () => {
    await write('plants/README.md');
    await write('plants/grass/1.jpg');
    await write('plants/dandelion/2.jpg');
    const { photos } = await read();
    expect(labelled(photos)).toEqual(['plants/dandelion/2.jpg = dandelion', 'plants/grass/1.jpg = grass']);
  });

  it('passes over hidden files and what systems leave behind, and lists stray files', async () => {
    for (const name of [
      '.DS_Store',
      'Thumbs.db',
      'README.md',
      'LICENSE',
      '.git/config',
      'grass/desktop.ini',
    ]) {
      await write(name);
    }
    await write('grass/1.jpg');
    await write('dandelion/2.jpg');
    await write('stray.jpg');
    const { photos, faults } = await read();
    expect(photos).toHaveLength(2);
    expect(faults).toEqual([expect.objectContaining({ source: 'stray.jpg', code: 'bad-label' })]);
  });

  it('lists the files of a folder whose name cannot be a label', async () => {
    await write('grass/1.jpg');
    await write('_löwenzahn/2.jpg');
    const { faults } = await read();
    expect(faults).toEqual([expect.objectContaining({ source: '_löwenzahn/2.jpg', code: 'bad-label' })]);
    expect(faults[0]?.reason).toContain('_löwenzahn');
  });

  it('lists the files of a class that predict would take for none of the classes', async () => {
    await write('grass/1.jpg');
    await write('unknown/2.jpg');
    await write('unknown weeds/3.jpg');
    const { photos, faults } = await read();
    expect(labelled(photos)).toEqual(['grass/1.jpg = grass', 'unknown weeds/3.jpg = unknown weeds']);
    expect(faults).toEqual([expect.objectContaining({ source: 'unknown/2.jpg', code: 'bad-label' })]);
    expect(faults[0]?.reason).toContain('rename the class');
  });

  it('follows no link out of the folder and no link to a folder', async () => {
    await write('secret.jpg', 'secret', outside);
    const inner = await write('grass/1.jpg');
    await write('dandelion/2.jpg');
    await symlink(join(outside, 'secret.jpg'), join(root, 'grass/leak.jpg'));
    await symlink(outside, join(root, 'dandelion/leaks'));
    await symlink(root, join(root, 'grass/circle'));
    await symlink(join(root, 'nothing'), join(root, 'grass/broken.jpg'));
    await symlink(inner, join(root, 'grass/inner.jpg'));
    const { photos, faults } = await read();
    expect(photos.map((photo) => photo.text)).not.toContain('secret');
    expect(photos.map((photo) => photo.source)).toContain('grass/inner.jpg');
    expect(faults.map((fault) => fault.source).sort()).toEqual([
      'dandelion/leaks',
      'grass/broken.jpg',
      'grass/circle',
      'grass/leak.jpg',
    ]);
    expect(new Set(faults.map((fault) => fault.code))).toEqual(new Set(['forbidden']));
  });

  it.skipIf(process.platform === 'win32')('does not wait on a pipe', async () => {
    await write('grass/1.jpg');
    execFileSync('mkfifo', [join(root, 'grass/pipe.jpg')]);
    const { photos, faults } = await read();
    expect(photos).toHaveLength(1);
    expect(faults.map((fault) => fault.source)).toEqual(['grass/pipe.jpg']);
  });

  it('is read only beneath the allowed folders, after links', async () => {
    await write('grass/1.jpg', 'x', outside);
    expect((await codeOf(read(outside))).code).toBe('forbidden');
    await symlink(outside, join(root, 'door'));
    expect((await codeOf(read(join(root, 'door')))).code).toBe('forbidden');
    expect((await codeOf(read(`${root}-other`))).code).toBe('bad-folder');
    expect((await codeOf(read(root, { INGEST_FILE_ROOTS: '' }))).code).toBe('forbidden');
    expect((await codeOf(read(root, { INGEST_FILE_ROOTS: `${root}/grass` }))).code).toBe('forbidden');
  });

  it('is refused where it is none', async () => {
    const file = await write('file.txt');
    expect((await codeOf(read(file))).code).toBe('bad-folder');
    expect((await codeOf(read(join(root, 'missing')))).code).toBe('bad-folder');
    const remote = readAll({ kind: 'folder', uri: 'http://example.org/photos' }, access());
    expect((await codeOf(remote)).code).toBe('bad-folder');
    const host = readAll({ kind: 'folder', uri: 'file://server/photos' }, access());
    expect((await codeOf(host)).code).toBe('forbidden');
  });

  it('refuses files beyond the size limit', async () => {
    await write('grass/large.jpg', 'x'.repeat(101));
    const { faults } = await read(root, { INGEST_MAX_PHOTO_BYTES: '100' });
    expect(faults).toEqual([expect.objectContaining({ source: 'grass/large.jpg', code: 'image-too-large' })]);
  });
});

describe('a manifest of this machine', () => {
  const read = (path: string, settings = {}) =>
    readAll({ kind: 'manifest', uri: urlOf(path) }, access(settings));

  it('names paths relative to itself, absolute paths and file addresses', async () => {
    const absolute = await write('elsewhere/b.jpg', 'B');
    const address = urlOf(await write('elsewhere/c 100%.jpg', 'C'));
    await write('lists/photos/a.jpg', 'A');
    const lines = [
      'url,label',
      'photos/a.jpg,grass',
      '../elsewhere/b.jpg,grass',
      `${absolute},daisy`,
      `${address},daisy`,
    ];
    const { photos, total } = await read(await write('lists/photos.csv', lines.join('\n')));
    expect(photos.map((photo) => photo.text)).toEqual(['A', 'B', 'B', 'C']);
    expect(photos[0]?.source).toBe('photos/a.jpg');
    expect(total).toBe(4);
  });

  it('does not reach beyond the allowed folders', async () => {
    const secret = await write('secret.jpg', 'secret', outside);
    await symlink(secret, join(root, 'leak.jpg'));
    const lines = [
      'url,label',
      `${secret},x`,
      `${urlOf(secret)},x`,
      'leak.jpg,x',
      `../${outside.split('/').at(-1)}/secret.jpg,x`,
      'none.jpg,x',
    ];
    const { photos, faults } = await read(await write('photos.csv', lines.join('\n')));
    expect(photos).toEqual([]);
    expect(faults.map((fault) => fault.code)).toEqual([...Array(4).fill('forbidden'), 'file-unreadable']);
  });

  it('lists bad lines and bad labels with their reasons', async () => {
    await write('a.jpg');
    const long = `https://example.org/${'x'.repeat(3000)}.jpg`;
    const { photos, faults } = await read(
      await write(
        'photos.csv',
        `url,label\na.jpg,grass\na.jpg,<b>\nb.jpg\n,grass\n${long},grass\na.jpg,unknown\n`,
      ),
    );
    expect(photos).toHaveLength(1);
    expect(faults.map((fault) => [fault.source.slice(0, 20), fault.code])).toEqual([
      ['b.jpg', 'bad-manifest'],
      ['line 5', 'bad-manifest'],
      ['a.jpg', 'bad-label'],
      ['https://example.org/', 'bad-data'],
      ['a.jpg', 'bad-label'],
    ]);
    expect(faults[0]?.reason).toBe('Line 4: the label is missing.');
    expect(faults.every((fault) => Buffer.byteLength(fault.source) < 2000)).toBe(true);
  });

  it('is refused as a whole when it cannot be read', async () => {
    expect((await codeOf(read(await write('empty.csv', '')))).code).toBe('bad-manifest');
    expect((await codeOf(read(await write('secret.csv', 'url,label\na,b', outside)))).code).toBe('forbidden');
    const missing = await codeOf(read(join(root, 'missing.csv')));
    expect(missing.code).toBe('file-unreadable');
    expect(missing.message).toContain('missing.csv');
  });
});

describe('a manifest from the web', () => {
  it('names addresses relative to where it was found, and no files', async () => {
    const secret = await write('secret.jpg', 'secret');
    const site = await startSite((request, response) => {
      if (request.url === '/old/photos.csv') response.writeHead(302, { location: '/sets/photos.csv' }).end();
      else if (request.url === '/sets/photos.csv') {
        response.end(`url,label\na.jpg,grass\n/b.jpg,daisy\n${urlOf(secret)},daisy\n${secret},daisy\n`);
      } else if (request.url?.endsWith('.jpg') && !request.url.includes('secret')) response.end(request.url);
      else response.writeHead(404).end();
    });
    const uri = `${site.origin}/old/photos.csv`;
    const { photos, faults } = await readAll(
      { kind: 'manifest', uri },
      access({ INGEST_ALLOWED_HOSTS: '127.0.0.1' }),
    );
    expect(photos.map((photo) => photo.text)).toEqual(['/sets/a.jpg', '/b.jpg']);
    expect(faults.map((fault) => fault.code)).toEqual(['address-refused', 'download-failed']);
    const guarded = await codeOf(readAll({ kind: 'manifest', uri }, access()));
    expect(guarded.code).toBe('address-refused');
    const missing = readAll(
      { kind: 'manifest', uri: `${site.origin}/none.csv` },
      access({ INGEST_ALLOWED_HOSTS: '127.0.0.1' }),
    );
    expect(await codeOf(missing)).toEqual({
      code: 'download-failed',
      message: expect.stringContaining('404'),
    });
    await site.close();
  });
});

const files = [
  { name: 'plants/' },
  { name: 'plants/README.md', bytes: Buffer.from('read me') },
  { name: 'plants/.DS_Store', bytes: Buffer.from('x') },
  { name: '__MACOSX/plants/grass/._1.jpg', bytes: Buffer.from('x') },
  { name: 'plants/grass/1.jpg', bytes: Buffer.from('G1') },
  { name: 'plants/grass/deep/2.jpg', bytes: Buffer.from('G2') },
  { name: 'plants/dandelion/3.jpg', bytes: Buffer.from('D3') },
];
const expected = [
  'plants/grass/1.jpg = grass',
  'plants/grass/deep/2.jpg = grass',
  'plants/dandelion/3.jpg = dandelion',
];
const kinds: [string, (packed: Parameters<typeof zipOf>[0]) => Buffer | Promise<Buffer>][] = [
  ['zip', zipOf],
  ['tar', tarOf],
  ['tar.gz', async (packed) => gzipSync(await tarOf(packed))],
];

describe.each(kinds)('a %s archive', (_kind, pack) => {
  const read = async (bytes: Uint8Array, settings: Record<string, string> = {}) =>
    readAll({ kind: 'archive', uri: urlOf(await write('archive.bin', bytes)) }, access(settings));

  it('is read with a folder a class, also below one wrapping folder', async () => {
    const { photos, faults, total } = await read(await pack(files));
    expect(labelled(photos)).toEqual(expected);
    expect(photos.map((photo) => photo.text)).toEqual(['G1', 'G2', 'D3']);
    expect(faults).toEqual([]);
    expect(total).toBe(3);
    const flat = files.map((file) => ({ ...file, name: file.name.replace('plants/', '') || 'x/' }));
    expect((await read(await pack(flat))).photos.map((photo) => photo.label)).toEqual([
      'grass',
      'grass',
      'dandelion',
    ]);
  });

  it('is refused its class that predict would take for none of the classes', async () => {
    const { photos, faults } = await read(
      await pack([...files, { name: 'plants/unknown/4.jpg', bytes: Buffer.from('U4') }]),
    );
    expect(labelled(photos)).toEqual(expected);
    expect(faults).toEqual([expect.objectContaining({ source: 'plants/unknown/4.jpg', code: 'bad-label' })]);
  });

  it('is downloaded from the web', async () => {
    const bytes = await pack(files);
    const site = await startSite((_request, response) => response.end(bytes));
    const source = { kind: 'archive' as const, uri: `${site.origin}/plants` };
    const { photos } = await readAll(source, access({ INGEST_ALLOWED_HOSTS: '127.0.0.1' }));
    expect(labelled(photos)).toEqual(expected);
    const small = { INGEST_ALLOWED_HOSTS: '127.0.0.1', INGEST_MAX_ARCHIVE_BYTES: '100' };
    expect((await codeOf(readAll(source, access(small)))).code).toBe('image-too-large');
    await site.close();
  });

  it('refuses names that lead out of it and links, and lists them', async () => {
    const { photos, faults } = await read(
      await pack([
        ...files,
        { name: '../../evil.jpg', bytes: Buffer.from('x') },
        { name: 'grass/../../evil.jpg', bytes: Buffer.from('x') },
        { name: '/etc/evil.jpg', bytes: Buffer.from('x') },
        { name: 'C:\\evil.jpg', bytes: Buffer.from('x') },
        { name: '..\\evil.jpg', bytes: Buffer.from('x') },
        { name: 'plants/grass/link.jpg', linkTo: '/etc/passwd' },
      ]),
    );
    expect(labelled(photos)).toEqual(expected);
    expect(faults.map((fault) => fault.code)).toEqual(Array(6).fill('forbidden'));
    expect(faults.at(-1)?.source).toBe('plants/grass/link.jpg');
  });

  it('refuses photos beyond the size limit without reading them', async () => {
    const large = { name: 'plants/grass/large.jpg', bytes: Buffer.from('0123456789'.repeat(20)) };
    const { photos, faults } = await read(await pack([large, ...files]), { INGEST_MAX_PHOTO_BYTES: '100' });
    expect(photos).toHaveLength(3);
    expect(faults).toEqual([expect.objectContaining({ source: large.name, code: 'image-too-large' })]);
  });

  it('is refused when it unpacks to too much or has too many entries', async () => {
    const bytes = await pack(files);
    expect((await codeOf(read(bytes, { INGEST_MAX_UNPACKED_BYTES: '5' }))).code).toBe('bad-archive');
    const crowded = await codeOf(read(bytes, { INGEST_MAX_ARCHIVE_ENTRIES: '4' }));
    expect(crowded.code).toBe('bad-archive');
    expect(crowded.message).toContain('4');
  });

  it('is refused when it is cut off', async () => {
    const bytes = await pack([...files, { name: 'plants/grass/4.jpg', bytes: Buffer.alloc(9000, 'x') }]);
    expect((await codeOf(read(bytes.subarray(0, bytes.length * 0.6)))).code).toBe('bad-archive');
  });
});

describe('archives that lie', () => {
  const read = async (bytes: Uint8Array, settings: Record<string, string> = {}) =>
    readAll({ kind: 'archive', uri: urlOf(await write('archive.bin', bytes)) }, access(settings));
  const zeros = Buffer.alloc(10 * 1024 * 1024);

  it('does not unpack a decompression bomb', async () => {
    const bomb = [{ name: 'grass/bomb.jpg', bytes: zeros }];
    expect((await codeOf(read(zipOf(bomb)))).message).toContain('bomb');
    expect((await codeOf(read(gzipSync(await tarOf(bomb))))).message).toContain('bomb');
  });

  it('does not unpack many entries that share the packed bytes of one', async () => {
    // The directory claims a megabyte for each of 400 entries of a few bytes.
    const many = Array.from({ length: 400 }, (_, at) => ({
      name: `grass/${at}.jpg`,
      claimedSize: 1_000_000,
    }));
    expect((await codeOf(read(zipOf(many)))).code).toBe('bad-archive');
  });

  it('lists a zip entry whose size or bytes are not what it says', async () => {
    const damaged = zipOf([{ name: 'grass/1.jpg', bytes: Buffer.from('first photo') }, ...files]);
    damaged.writeUInt8(damaged.readUInt8(30 + 11 + 3) ^ 0xff, 30 + 11 + 3);
    const { photos, faults } = await read(damaged);
    expect(photos).toHaveLength(3);
    expect(faults).toEqual([expect.objectContaining({ source: 'grass/1.jpg', code: 'bad-archive' })]);
    const longer = zipOf([
      { name: 'grass/1.jpg', bytes: Buffer.alloc(5000, 'x'), claimedSize: 10 },
      ...files,
    ]);
    expect((await read(longer)).faults).toEqual([
      expect.objectContaining({ source: 'grass/1.jpg', code: 'bad-archive' }),
    ]);
  });

  it('refuses an encrypted zip and other kinds of archive by name', async () => {
    const encrypted = zipOf([{ name: 'grass/1.jpg', bytes: Buffer.from('x'), encrypted: true }]);
    expect((await codeOf(read(encrypted))).message).toContain('password');
    expect((await codeOf(read(Buffer.from('7z\xbc\xaf\x27\x1c rest', 'latin1')))).message).toContain('7z');
    expect((await codeOf(read(Buffer.from('<html>')))).message).toContain('web page');
    expect((await codeOf(read(Buffer.alloc(0)))).code).toBe('bad-archive');
    expect((await codeOf(read(zipOf(files).subarray(0, 40)))).code).toBe('bad-archive');
  });

  it('leaves no file behind, whatever happens', async () => {
    const left = async () =>
      (await readdir(tmpdir())).filter((name) => name.startsWith('dandelion-archive-'));
    const before = await left();
    const site = await startSite((_request, response) => response.end('no archive at all'));
    const source = { kind: 'archive' as const, uri: `${site.origin}/x.zip` };
    const result = await codeOf(readAll(source, access({ INGEST_ALLOWED_HOSTS: '127.0.0.1' })));
    expect(result.code).toBe('bad-archive');
    expect(await left()).toEqual(before);
    await site.close();
  });
});
