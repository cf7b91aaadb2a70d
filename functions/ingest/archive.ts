import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { saveOutside } from '../../shared/stores/outside.ts';
import { isBucketAddress, saveObject } from './bucket.ts';
import { isWebAddress, withTries } from './download.ts';
import {
  aboutSource,
  type FaultyEntry,
  type OpenSource,
  type SourceAccess,
  type SourceEntry,
} from './entries.ts';
import { entryAt, findLayout, isIgnored } from './layout.ts';
import { openRegular, pathOfFileUrl, resolveBeneath } from './local-files.ts';
import { readTar } from './tar.ts';
import { type ArchiveLimits, type ArchiveMember, type ArchiveReader, badArchive } from './unpacking.ts';
import { readZip } from './zip.ts';

/**
 * Opens a zip, tar or tar.gz archive with a folder a class, from this machine or the web. The kind is told by its
 * bytes. Nothing is unpacked to disk; a first pass over the names finds the class folders and checks the limits.
 *
 * @throws DandelionError `bad-archive` when it is damaged, encrypted, of another kind or a decompression bomb,
 *   `forbidden`, or what downloading it throws
 */
export async function openArchive(uri: string, access: SourceAccess): Promise<OpenSource> {
  const file = await obtain(uri, access).catch((error: unknown) => {
    throw aboutSource(error, `The archive ${uri} cannot be read`);
  });
  const { settings, signal } = access;
  const limits: ArchiveLimits = {
    maxPhotoBytes: settings.INGEST_MAX_PHOTO_BYTES,
    maxUnpackedBytes: settings.INGEST_MAX_UNPACKED_BYTES,
    maxEntries: settings.INGEST_MAX_ARCHIVE_ENTRIES,
  };
  let reader: ArchiveReader | undefined;
  const close = async () => {
    await reader?.close();
    await file.remove();
  };
  try {
    reader = await openReader(file.path, limits, signal);
    const { total, wrapping } = await survey(reader, signal);
    return { total, close, entries: entriesOf(reader, wrapping, signal) };
  } catch (error) {
    await close();
    throw aboutSource(error, `The archive ${uri} cannot be used`);
  }
}

async function survey(
  reader: ArchiveReader,
  signal: AbortSignal,
): Promise<{ total: number; wrapping: number }> {
  const layout = findLayout();
  let total = 0;
  for await (const member of reader.members({ content: false })) {
    signal.throwIfAborted();
    const place = placeOf(member);
    if (place === undefined) continue;
    total += 1;
    if ('parts' in place) layout.note(place.parts);
  }
  return { total, wrapping: layout.wrappingFolders() };
}

async function* entriesOf(
  reader: ArchiveReader,
  wrapping: number,
  signal: AbortSignal,
): AsyncIterable<SourceEntry> {
  for await (const member of reader.members({ content: true })) {
    signal.throwIfAborted();
    const place = placeOf(member);
    if (place === undefined) continue;
    yield 'parts' in place ? entryAt(place.parts, wrapping, () => member.open()) : place;
  }
}

/** Where a member lies; undefined for folders and files to pass over, a fault for names and kinds that are refused. */
function placeOf({ name, type }: ArchiveMember): { parts: string[] } | FaultyEntry | undefined {
  if (type === 'directory') return undefined;
  const refuse = (reason: string): FaultyEntry => ({
    kind: 'fault',
    source: name,
    code: 'forbidden',
    reason,
  });
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (/^(\/|[A-Za-z]:)/.test(name) || parts.includes('..') || parts.length === 0) {
    return refuse('The name leads out of the archive.');
  }
  if (isIgnored(parts)) return undefined;
  if (type === 'link') return refuse('Links in archives are not followed.');
  if (type === 'other') return refuse('This is not a regular file.');
  return { parts };
}

async function openReader(path: string, limits: ArchiveLimits, signal: AbortSignal): Promise<ArchiveReader> {
  const head = await readHead(path);
  if (head.startsWith('PK\x03\x04') || head.startsWith('PK\x05\x06')) return readZip(path, limits);
  const isGzip = head.startsWith('\x1f\x8b');
  if (isGzip || head.startsWith('ustar', 257)) return readTar(path, { ...limits, isGzip, signal });
  const kind = otherKinds.find(([magic]) => head.startsWith(magic))?.[1] ?? 'of an unknown kind';
  throw badArchive(`it is ${kind}; pack it as zip, tar or tar.gz.`);
}

const otherKinds: [magic: string, kind: string][] = [
  ['7z\xbc\xaf\x27\x1c', 'a 7z archive'],
  ['Rar!', 'a RAR archive'],
  ['\xfd7zXZ', 'compressed with xz'],
  ['BZh', 'compressed with bzip2'],
  ['\x28\xb5\x2f\xfd', 'compressed with Zstandard'],
  ['<', 'a web page or XML'],
];

async function readHead(path: string): Promise<string> {
  const file = await openRegular(path);
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(512), 0, 512, 0);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await file.close();
  }
}

/** The archive as a file of this machine, downloaded where it is not. */
async function obtain(uri: string, access: SourceAccess): Promise<{ path: string; remove(): Promise<void> }> {
  const { settings, signal } = access;
  if (!isWebAddress(uri) && !isBucketAddress(uri)) {
    const path = await resolveBeneath(pathOfFileUrl(uri), settings.INGEST_FILE_ROOTS);
    return { path, remove: async () => {} };
  }
  const directory = await mkdtemp(join(tmpdir(), 'dandelion-archive-'));
  const remove = () => rm(directory, { recursive: true, force: true });
  const path = join(directory, 'archive');
  try {
    if (isBucketAddress(uri)) {
      await saveObject(uri, path, settings.INGEST_MAX_ARCHIVE_BYTES, access);
      return { path, remove };
    }
    const options = {
      allowedHosts: settings.INGEST_ALLOWED_HOSTS,
      timeoutMs: settings.INGEST_SOURCE_TIMEOUT_MS,
      maxBytes: settings.INGEST_MAX_ARCHIVE_BYTES,
      signal,
    };
    await withTries(() => saveOutside(uri, path, options), settings, signal);
    return { path, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}
