import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parse } from 'csv-parse/sync';
import { DandelionError } from '../errors.ts';
import { digestOf, type ImageSource } from '../events.ts';
import type { WantedSource } from './options.ts';
import { drawSample } from './sample.ts';

/** Photos to train on: what the request names, and what ingest must be allowed to read for it. */
export interface PreparedSource {
  source: ImageSource;
  /** Digest of the content: the same photos ask for the same run. */
  digest: string;
  /** How a person calls it. */
  title: string;
  /** Settings of the ingest function. */
  env: Record<string, string>;
}

const publicPhotos = 'https://raw.githubusercontent.com/btphan95/greenr-airflow/master/data';
const publicPhotosPerClass = 200;
const reachableTimeoutMs = 5000;
const manifestTimeoutMs = 30_000;
const longestManifestBytes = 64 * 1024 * 1024;

/**
 * Gets the photos of the command line ready: draws the sample, writes the list of the public photos, reads what
 * names the content.
 *
 * @param say hears sentences for the terminal
 * @throws DandelionError `bad-folder`, `bad-manifest`, `download-failed`, `bad-config`
 */
export async function prepareSource(
  wanted: WantedSource,
  dataDir: string,
  say: (sentence: string) => void,
): Promise<PreparedSource> {
  switch (wanted.kind) {
    case 'images':
      return folderSource(wanted.path, `the photos in ${wanted.path}`);
    case 'manifest':
      return 'url' in wanted
        ? manifestUrlSource(wanted.url)
        : manifestFileSource(wanted.path, `the manifest ${wanted.path}`);
    case 'archive': {
      const path = await realpath(wanted.path);
      const source = { kind: 'archive', uri: pathToFileURL(path).href } as const;
      const title = `the archive ${wanted.path}`;
      return { source, digest: await digestOfFile(path), title, env: fileRoots(dirname(path)) };
    }
    case 'sample':
      return sampleSource(dataDir, say);
    case 'default':
      return defaultSource(dataDir, say);
  }
}

async function defaultSource(dataDir: string, say: (sentence: string) => void): Promise<PreparedSource> {
  const fault = await whyUnreachable(`${publicPhotos}/dandelion/00000000.jpg`);
  if (fault === undefined) {
    const path = join(dataDir, 'public-photos.csv');
    await mkdir(dataDir, { recursive: true });
    await writeFile(path, publicManifest());
    return manifestFileSource(path, `${2 * publicPhotosPerClass} public photos of dandelions and grass`);
  }
  say(
    `The public photos at ${new URL(publicPhotos).host} cannot be reached (${fault}): going on with drawn ones.`,
  );
  return sampleSource(dataDir, say);
}

async function sampleSource(dataDir: string, say: (sentence: string) => void): Promise<PreparedSource> {
  const folder = join(dataDir, 'sample');
  await mkdir(dataDir, { recursive: true });
  const photos = await drawSample(folder, () => say(`Drawing sample photos into ${folder} ...`));
  return folderSource(folder, `${photos} drawn photos`);
}

/** The manifest of the public photos: CSV with the header `url,label`. */
export function publicManifest(): string {
  const lines = ['dandelion', 'grass'].flatMap((label) =>
    Array.from({ length: publicPhotosPerClass }, (_, index) => {
      return `${publicPhotos}/${label}/${String(index).padStart(8, '0')}.jpg,${label}`;
    }),
  );
  return `url,label\n${lines.join('\n')}\n`;
}

async function whyUnreachable(url: string): Promise<string | undefined> {
  try {
    const response = await fetch(url, { method: 'HEAD', signal: AbortSignal.timeout(reachableTimeoutMs) });
    return response.ok ? undefined : `status ${response.status}`;
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return cause instanceof Error ? cause.message : String(cause);
  }
}

async function folderSource(folder: string, title: string): Promise<PreparedSource> {
  const path = await realpath(folder);
  const source = { kind: 'folder', uri: pathToFileURL(path).href } as const;
  return { source, digest: await digestOfFolder(path), title, env: fileRoots(path) };
}

async function manifestFileSource(file: string, title: string): Promise<PreparedSource> {
  const path = await realpath(file);
  const bytes = await readFile(path);
  const source = { kind: 'manifest', uri: pathToFileURL(path).href } as const;
  return {
    source,
    digest: digestOf(bytes),
    title,
    env: { ...fileRoots(dirname(path), ...foldersIn(bytes, dirname(path))), ...allowedHosts(bytes) },
  };
}

async function manifestUrlSource(url: URL): Promise<PreparedSource> {
  const bytes = await download(url);
  const source = { kind: 'manifest', uri: url.href } as const;
  const env = allowedHosts(bytes, url);
  return { source, digest: digestOf(bytes), title: `the manifest ${url.href}`, env };
}

async function download(url: URL): Promise<Buffer> {
  const failed = (why: string, cause?: unknown) =>
    new DandelionError('download-failed', `The manifest ${url.href} cannot be had: ${why}.`, { cause });
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(manifestTimeoutMs) });
    if (!response.ok) throw failed(`status ${response.status}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (bytes.length > longestManifestBytes) throw failed(`it has more than ${longestManifestBytes} bytes`);
    return bytes;
  } catch (error) {
    if (error instanceof DandelionError) throw error;
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw failed(cause instanceof Error ? cause.message : String(cause), error);
  }
}

/**
 * Who names a manifest on the command line trusts the hosts in it, private ones too. A manifest that cannot be read
 * allows nothing; ingest says what is wrong with it.
 */
function allowedHosts(manifest: Buffer, ...more: URL[]): Record<string, string> {
  const hosts = new Set(more.map((url) => url.host));
  for (const address of addressesIn(manifest)) {
    const url = URL.parse(address);
    if (url !== null && /^https?:$/.test(url.protocol)) hosts.add(url.host);
  }
  return hosts.size === 0 ? {} : { INGEST_ALLOWED_HOSTS: [...hosts].sort().join(',') };
}

/** Folders of the photos on this machine that a manifest names, outside its own folder. */
function foldersIn(manifest: Buffer, base: string): string[] {
  const paths = addressesIn(manifest).filter((address) => !/^[a-z][a-z0-9+.-]*:/i.test(address));
  const folders = new Set(paths.map((path) => dirname(resolve(base, path))));
  return [...folders].filter((folder) => relative(base, folder).startsWith('..')).sort();
}

function addressesIn(manifest: Buffer): string[] {
  try {
    const rows: Record<string, string>[] = parse(manifest, {
      bom: true,
      columns: true,
      relax_column_count: true,
      skip_empty_lines: true,
      trim: true,
    });
    return rows.flatMap((row) => row.url ?? []);
  } catch {
    return [];
  }
}

function fileRoots(...folders: string[]): Record<string, string> {
  const folder = folders.find((name) => name.includes(','));
  if (folder === undefined) return { INGEST_FILE_ROOTS: folders.join(',') };
  throw new DandelionError(
    'bad-config',
    `The folder ${folder} has a comma in its name: rename it, or move the photos.`,
  );
}

/** Names and bytes of every file below a folder, in the order of their names. */
async function digestOfFolder(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    throw new DandelionError('bad-folder', `The folder ${folder} cannot be read: ${why}.`, { cause: error });
  });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const parts: string[] = [];
  for (const path of paths.sort()) parts.push(relative(folder, path), await digestOfFile(path));
  return digestOf(...parts);
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}
