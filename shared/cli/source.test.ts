import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { imageSource } from '../events.ts';
import { allowSources } from './allowed-sources.ts';
import type { WantedSource } from './options.ts';
import { prepareSource, publicManifest } from './source.ts';

let folder: string;
let server: Server | undefined;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'dandelion-source-')));
  await mkdir(join(folder, 'photos', 'daisy'), { recursive: true });
  await writeFile(join(folder, 'photos', 'daisy', 'a.jpg'), 'a');
});

afterEach(async () => {
  server?.close();
  server = undefined;
  await rm(folder, { recursive: true, force: true });
});

const prepare = (wanted: WantedSource) => prepareSource(wanted, join(folder, 'data'), () => {});

describe('the photos of the command line', () => {
  test('in a folder: the folder may be read, its content is the digest', async () => {
    const path = join(folder, 'photos');
    const first = await prepare({ kind: 'images', path });
    expect(first.source).toEqual({ kind: 'folder', uri: pathToFileURL(path).href });
    expect(imageSource.parse(first.source)).toEqual(first.source);
    expect(first.env).toEqual({ INGEST_FILE_ROOTS: path });
    expect((await prepare({ kind: 'images', path })).digest).toBe(first.digest);
    await writeFile(join(path, 'daisy', 'a.jpg'), 'b');
    const changed = await prepare({ kind: 'images', path });
    expect(changed.digest).not.toBe(first.digest);
    await mkdir(join(path, 'tulip'));
    await writeFile(join(path, 'tulip', 'a.jpg'), 'b');
    expect((await prepare({ kind: 'images', path })).digest).not.toBe(changed.digest);
  });

  test('in a manifest file: the hosts it names are allowed, private ones too', async () => {
    const path = join(folder, 'list.csv');
    await writeFile(
      path,
      'url,label\nhttps://example.org/1.jpg,daisy\n"http://10.0.0.7:9000/a,b.jpg",daisy\nphotos/daisy/a.jpg,daisy\n',
    );
    const { source, env } = await prepare({ kind: 'manifest', path });
    expect(source).toEqual({ kind: 'manifest', uri: pathToFileURL(path).href });
    expect(env).toEqual({ INGEST_FILE_ROOTS: folder, INGEST_ALLOWED_HOSTS: '10.0.0.7:9000,example.org' });
  });

  test('in a manifest at an address: its own host is allowed as well', async () => {
    const manifest = 'url,label\nhttp://10.0.0.7/a.jpg,daisy\n';
    server = createServer((_request, response) => response.end(manifest)).listen(0, '127.0.0.1');
    await new Promise((resolve) => server?.once('listening', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const url = new URL(`http://127.0.0.1:${port}/list.csv`);
    const { source, env } = await prepare({ kind: 'manifest', url });
    expect(source.uri).toBe(url.href);
    expect(env).toEqual({ INGEST_ALLOWED_HOSTS: `10.0.0.7,127.0.0.1:${port}` });
  });

  test('at an address nobody answers: says so', async () => {
    await expect(
      prepare({ kind: 'manifest', url: new URL('http://127.0.0.1:1024/list.csv') }),
    ).rejects.toMatchObject({ code: 'download-failed' });
  });

  test('in an archive: its folder may be read', async () => {
    const path = join(folder, 'photos.zip');
    await writeFile(path, 'bytes');
    expect(await prepare({ kind: 'archive', path })).toMatchObject({
      source: { kind: 'archive' },
      env: { INGEST_FILE_ROOTS: folder },
    });
  });

  test('drawn: once, then the same', async () => {
    const first = await prepare({ kind: 'sample' });
    const second = await prepare({ kind: 'sample' });
    expect(second.digest).toBe(first.digest);
    expect(second.title).toBe('160 drawn photos');
  });

  test('in a folder whose name the setting cannot carry: says so', async () => {
    const path = join(folder, 'a,b');
    await mkdir(path);
    await expect(prepare({ kind: 'images', path })).rejects.toMatchObject({ code: 'bad-config' });
  });
});

test('the public photos are 200 of each class', () => {
  const lines = publicManifest().trim().split('\n');
  expect(lines).toHaveLength(401);
  expect(lines[1]).toMatch(/\/dandelion\/00000000\.jpg,dandelion$/);
  expect(lines[400]).toMatch(/\/grass\/00000199\.jpg,grass$/);
});

test('what earlier starts allowed stays allowed, so that their runs can go on', async () => {
  const dataDir = join(folder, 'data');
  await allowSources(dataDir, { INGEST_FILE_ROOTS: '/a' }, {});
  const env = await allowSources(
    dataDir,
    { INGEST_FILE_ROOTS: '/b', INGEST_ALLOWED_HOSTS: 'x:1' },
    { INGEST_FILE_ROOTS: '/mine' },
  );
  expect(env).toEqual({ INGEST_FILE_ROOTS: '/a,/b,/mine', INGEST_ALLOWED_HOSTS: 'x:1' });
  expect(await readFile(join(dataDir, 'allowed-sources.json'), 'utf8')).not.toContain('/mine');
});
