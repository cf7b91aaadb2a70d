import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { pack } from 'tar-stream';

const compress = promisify(gzip);

/** What a container starts with, in the words of the OCI image configuration. */
export interface ImageConfig {
  Env: string[];
  WorkingDir: string;
  User: string;
  Entrypoint: string[];
  ExposedPorts: Record<string, object>;
  Labels: Record<string, string>;
}

/** One file system layer. */
export interface Layer {
  /** The compressed tar. */
  content: Buffer;
  /** Digest of the tar before compression. */
  diffId: string;
  unpackedBytes: number;
}

export interface ImageOptions {
  /** Full name with tag, as `docker load` and `ctr images import` will call it. */
  name: string;
  architecture: 'amd64' | 'arm64';
  config: ImageConfig;
  layers: Layer[];
}

interface Blob {
  digest: string;
  content: Buffer;
}

/**
 * Makes a layer of a folder. The same files give the same bytes: names are sorted, times and owners are zero.
 *
 * @param target absolute folder in the image
 * @param skip paths (with `/`, relative to the folder) that stay out
 */
export async function makeLayer(
  folder: string,
  target: string,
  skip: (path: string) => boolean = () => false,
): Promise<Layer> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true });
  const paths = entries
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .filter((path) => !skip(path))
    .sort();
  const tar = pack();
  const bytes = collect(tar);
  const prefix = target.replace(/^\/|\/$/g, '');
  const plain = { mtime: new Date(0), uid: 0, gid: 0 };
  if (prefix !== '') tar.entry({ ...plain, name: `${prefix}/`, type: 'directory', mode: 0o755 });
  let unpackedBytes = 0;
  for (const path of paths) {
    const source = join(folder, path);
    const info = await lstat(source);
    const name = prefix === '' ? path : `${prefix}/${path}`;
    if (info.isDirectory()) {
      const mode = info.mode & 0o1000 ? 0o1777 : 0o755;
      tar.entry({ ...plain, name: `${name}/`, type: 'directory', mode });
    } else if (info.isSymbolicLink()) {
      tar.entry({ ...plain, name, type: 'symlink', linkname: await readlink(source) });
    } else {
      unpackedBytes += info.size;
      const mode = info.mode & 0o100 ? 0o755 : 0o644;
      tar.entry({ ...plain, name, mode }, await readFile(source));
    }
  }
  tar.finalize();
  const unpacked = await bytes;
  // No file name and no time go into the header of what zlib makes of a buffer.
  return { content: await compress(unpacked, { level: 6 }), diffId: sha256(unpacked), unpackedBytes };
}

/**
 * Writes images of one name as an OCI image layout in a tar, which docker, podman, containerd and skopeo load.
 *
 * Source: OCI Image Format Specification 1.1, image-layout.md, config.md, manifest.md, image-index.md.
 *
 * @returns digest of the index (several platforms) or manifest (one)
 */
export async function writeArchive(
  file: string,
  images: ImageOptions[],
  annotations: Record<string, string>,
): Promise<string> {
  const blobs = new Map<string, Buffer>();
  const keep = (content: Buffer): Blob => {
    const digest = sha256(content);
    blobs.set(digest, content);
    return { digest, content };
  };
  const manifests = images.map((image) => describeImage(image, annotations, keep));
  const [first] = manifests;
  if (first === undefined) throw new Error('an archive needs an image');
  const top =
    manifests.length === 1
      ? first
      : descriptor(
          'application/vnd.oci.image.index.v1+json',
          keep(
            json({
              schemaVersion: 2,
              mediaType: 'application/vnd.oci.image.index.v1+json',
              manifests,
              annotations,
            }),
          ),
        );
  const name = images[0]?.name ?? '';
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        ...top,
        annotations: {
          'io.containerd.image.name': name,
          'org.opencontainers.image.ref.name': name.split(':').at(-1),
        },
      },
    ],
  };
  const tar = pack();
  const written = pipeline(tar, createWriteStream(file));
  const add = (path: string, content: Buffer) =>
    tar.entry({ name: path, mode: 0o644, mtime: new Date(0), uid: 0, gid: 0 }, content);
  add('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  add('index.json', json(index));
  for (const [digest, content] of [...blobs].sort(([a], [b]) => (a < b ? -1 : 1))) {
    add(`blobs/sha256/${digest.slice('sha256:'.length)}`, content);
  }
  tar.finalize();
  await written;
  return top.digest;
}

function describeImage(
  { architecture, config, layers }: ImageOptions,
  annotations: Record<string, string>,
  keep: (content: Buffer) => Blob,
) {
  const platform = { architecture, os: 'linux' };
  const configBlob = keep(
    json({
      created: '1970-01-01T00:00:00Z',
      ...platform,
      config: { ...config, Labels: { ...annotations, ...config.Labels } },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map(() => ({ created: '1970-01-01T00:00:00Z', created_by: 'npm run images' })),
    }),
  );
  const manifest = keep(
    json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: descriptor('application/vnd.oci.image.config.v1+json', configBlob),
      layers: layers.map(({ content }) =>
        descriptor('application/vnd.oci.image.layer.v1.tar+gzip', keep(content)),
      ),
      annotations,
    }),
  );
  return { ...descriptor('application/vnd.oci.image.manifest.v1+json', manifest), platform };
}

function descriptor(mediaType: string, { digest, content }: Blob) {
  return { mediaType, digest, size: content.length };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function sha256(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

async function collect(stream: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
