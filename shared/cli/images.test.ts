import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { extract } from 'tar-stream';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { makeLayer, writeArchive } from './image-archive.ts';
import { parseDockerfile } from './images.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'images-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const digestOf = (content: Buffer) => `sha256:${createHash('sha256').update(content).digest('hex')}`;
const dockerfile = () => readFile(join(import.meta.dirname, '../../knative/Dockerfile'), 'utf8');

async function readTar(file: string): Promise<Map<string, Buffer>> {
  const entries = new Map<string, Buffer>();
  for await (const entry of createReadStream(file).pipe(extract())) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    entries.set(entry.header.name, Buffer.concat(chunks));
  }
  return entries;
}

async function archive(name: string): Promise<string> {
  const source = join(folder, 'source');
  await mkdir(join(source, 'lib'), { recursive: true });
  await writeFile(join(source, 'index.mjs'), 'console.log(1)');
  await writeFile(join(source, 'index.mjs.map'), '{}');
  await writeFile(join(source, 'lib', 'a'.repeat(120)), 'long name');
  await symlink('index.mjs', join(source, 'link')).catch(() => undefined);
  const layer = await makeLayer(source, '/app', (path) => path.endsWith('.map'));
  const config = parseDockerfile(await dockerfile());
  const file = join(folder, name);
  const image = { name: 'dev.local/x:dev', architecture: 'amd64' as const, config, layers: [layer] };
  await writeArchive(file, [image, { ...image, architecture: 'arm64' }], {
    'org.opencontainers.image.title': 'x',
  });
  return file;
}

it('writes an archive in which every digest and size holds', async () => {
  const entries = await readTar(await archive('a.tar'));
  for (const [name, content] of entries) {
    if (name.startsWith('blobs/')) expect(digestOf(content)).toBe(name.replace('blobs/sha256/', 'sha256:'));
  }
  // biome-ignore lint/suspicious/noExplicitAny: the JSON under test.
  const read = (digest: string): any =>
    JSON.parse(String(entries.get(digest.replace('sha256:', 'blobs/sha256/'))));
  const index = JSON.parse(String(entries.get('index.json')));
  const { manifests } = read(index.manifests[0].digest);
  expect(manifests.map((manifest: { platform: object }) => manifest.platform)).toEqual([
    { architecture: 'amd64', os: 'linux' },
    { architecture: 'arm64', os: 'linux' },
  ]);
  const manifest = read(manifests[0].digest);
  const layer = entries.get(manifest.layers[0].digest.replace('sha256:', 'blobs/sha256/'));
  expect(layer?.length).toBe(manifest.layers[0].size);
  expect(read(manifest.config.digest).rootfs.diff_ids).toEqual([
    digestOf(gunzipSync(layer ?? Buffer.alloc(0))),
  ]);
});

it('makes the same bytes of the same files', async () => {
  const [first, second] = [await archive('a.tar'), await archive('b.tar')];
  expect(await readFile(first)).toEqual(await readFile(second));
});

it('keeps out what Node does not read', async () => {
  const entries = await readTar(await archive('a.tar'));
  const layers = [...entries].filter(([name]) => name.startsWith('blobs/')).map(([, content]) => content);
  const layer = layers.find((content) => content[0] === 0x1f);
  const text = gunzipSync(layer ?? Buffer.alloc(0)).toString('latin1');
  expect(text).toContain('app/index.mjs');
  expect(text).not.toContain('index.mjs.map');
});

it('takes what a container starts with from the one Dockerfile', async () => {
  const config = parseDockerfile(await dockerfile());
  expect(config).toMatchObject({ User: '65532:65532', WorkingDir: '/app', ExposedPorts: { '8080/tcp': {} } });
  expect(config.Entrypoint.at(0)).toBe('node');
  expect(() => parseDockerfile('RUN true')).toThrow('RUN');
});
