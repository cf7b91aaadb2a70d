import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { DandelionError } from '../../shared/errors.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { OpenSource, SourceAccess, SourceEntry } from './entries.ts';
import { entryAt, findLayout, isIgnored } from './layout.ts';

/** True for `s3://`. */
export function isBucketAddress(uri: string): boolean {
  return /^s3:\/\//i.test(uri);
}

/** The address of a key, or of a folder of keys, in the object store's own bucket. */
export function addressOf(objects: Pick<ObjectStore, 'bucket'>, key: string): string {
  return `s3://${objects.bucket}/${key.split('/').map(encodeURIComponent).join('/')}`;
}

/**
 * Opens a folder of the object store with a folder a class, such as `s3://dandelion/incoming/`; objects may lie deeper
 * in it.
 *
 * @throws DandelionError `bad-folder` for the whole bucket, `address-refused` for another one
 */
export async function openBucketFolder(uri: string, access: SourceAccess): Promise<OpenSource> {
  const { objects, settings, signal } = access;
  const folder = keyAt(uri, objects).replace(/\/*$/, '/');
  if (folder === '/')
    throw new DandelionError('bad-folder', `${uri} is a whole bucket; name a folder in it.`);
  const layout = findLayout();
  const found: { key: string; parts: string[]; sizeBytes: number }[] = [];
  for await (const { key, sizeBytes } of objects.list(folder)) {
    signal.throwIfAborted();
    const parts = key.slice(folder.length).split('/');
    if (isIgnored(parts)) continue;
    layout.note(parts);
    found.push({ key, parts, sizeBytes });
  }
  const wrapping = layout.wrappingFolders();
  const read = async (key: string, sizeBytes: number) => {
    requireSize(sizeBytes, settings.INGEST_MAX_PHOTO_BYTES);
    return (await objects.get(key)).bytes;
  };
  return {
    total: found.length,
    close: async () => {},
    entries: (async function* (): AsyncIterable<SourceEntry> {
      for (const { key, parts, sizeBytes } of found) {
        yield entryAt(parts, wrapping, () => read(key, sizeBytes));
      }
    })(),
  };
}

/**
 * Reads an object of the store's own bucket.
 *
 * @throws DandelionError `address-refused`, `file-unreadable`, `image-too-large`, and trouble with the store
 */
export async function readObject(uri: string, maxBytes: number, objects: ObjectStore): Promise<Uint8Array> {
  return (await objects.get(await findKey(uri, maxBytes, objects))).bytes;
}

/** The same as {@link readObject}, written to a file instead of memory. */
export async function saveObject(
  uri: string,
  path: string,
  maxBytes: number,
  { objects, signal }: Pick<SourceAccess, 'objects' | 'signal'>,
): Promise<void> {
  const key = await findKey(uri, maxBytes, objects);
  await pipeline(await objects.getStream(key), createWriteStream(path), { signal });
}

async function findKey(uri: string, maxBytes: number, objects: ObjectStore): Promise<string> {
  const key = keyAt(uri, objects);
  const found = await objects.head(key);
  // What a source names and is not there is the source's fault, unlike an object that we have stored.
  if (found === undefined) throw new DandelionError('file-unreadable', `There is no ${uri}.`);
  requireSize(found.sizeBytes, maxBytes);
  return key;
}

function requireSize(sizeBytes: number, maxBytes: number): void {
  if (sizeBytes <= maxBytes) return;
  throw new DandelionError('image-too-large', `The file is larger than the limit of ${maxBytes} bytes.`);
}

function keyAt(uri: string, objects: ObjectStore): string {
  const { hostname, pathname } = new URL(uri);
  if (hostname !== objects.bucket) {
    throw new DandelionError(
      'address-refused',
      `${uri} is in another bucket; this system reads only its own, s3://${objects.bucket}/.`,
    );
  }
  try {
    return decodeURIComponent(pathname.slice(1));
  } catch {
    throw new DandelionError('address-refused', `${uri} is not percent-encoded right.`);
  }
}
