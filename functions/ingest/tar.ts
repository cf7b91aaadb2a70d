import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { type Extract, type ExtractEvents, extract, type Header } from 'tar-stream';
import { DandelionError } from '../../shared/errors.ts';
import {
  type ArchiveLimits,
  type ArchiveMember,
  type ArchiveReader,
  badArchive,
  gather,
  isBomb,
  photoTooLarge,
} from './unpacking.ts';

interface TarOptions extends ArchiveLimits {
  isGzip: boolean;
  signal: AbortSignal;
}

type TarEntry = ExtractEvents['entry'][1];

/**
 * Reads a tar archive, gzipped or not, from front to back: a member's bytes are in memory when it is handed out,
 * since the next one cannot be reached without passing them.
 *
 * @throws DandelionError `bad-archive`
 */
export async function readTar(path: string, options: TarOptions): Promise<ArchiveReader> {
  return {
    members: ({ content }) => membersOf(path, options, content),
    close: async () => {},
  };
}

async function* membersOf(path: string, options: TarOptions, content: boolean): AsyncIterable<ArchiveMember> {
  const members = extract();
  const reading = unpackInto(members, path, options);
  // Its failure destroys `members`, whose loop then throws it; unheard it would end the process.
  reading.catch(() => {});
  let count = 0;
  try {
    for await (const entry of members) {
      count += 1;
      if (count > options.maxEntries) throw badArchive(`it has more than ${options.maxEntries} entries.`);
      yield content ? await memberWithBytes(entry, options) : memberOf(entry.header);
      entry.resume();
    }
    await reading;
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof DandelionError) throw error;
    throw badArchive(`the tar file is damaged (${error instanceof Error ? error.message : error}).`, error);
  } finally {
    members.destroy();
  }
}

function unpackInto(members: Extract, path: string, options: TarOptions): Promise<void> {
  const file = createReadStream(path);
  const { signal, isGzip, maxUnpackedBytes } = options;
  async function* limited(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    let unpackedBytes = 0;
    for await (const chunk of source) {
      unpackedBytes += chunk.byteLength;
      if (unpackedBytes > maxUnpackedBytes || isBomb(unpackedBytes, file.bytesRead)) {
        throw badArchive('it unpacks to far more than its size (a decompression bomb).');
      }
      yield chunk;
    }
  }
  return isGzip
    ? pipeline(file, createGunzip(), limited, members, { signal })
    : pipeline(file, limited, members, { signal });
}

async function memberWithBytes(entry: TarEntry, { maxPhotoBytes }: ArchiveLimits): Promise<ArchiveMember> {
  const member = memberOf(entry.header);
  const sizeBytes = entry.header.size;
  if (member.type !== 'file') return member;
  if (sizeBytes > maxPhotoBytes) {
    const tooLarge = photoTooLarge(maxPhotoBytes);
    return { ...member, open: () => Promise.reject(tooLarge) };
  }
  const bytes = await gather(entry as AsyncIterable<unknown> as AsyncIterable<Uint8Array>, sizeBytes);
  return { ...member, open: async () => bytes };
}

function memberOf(header: Header): ArchiveMember {
  return {
    name: header.name.replaceAll('\\', '/'),
    type: typeOf(header),
    open: () => Promise.reject(new Error('The archive was opened for listing only.')),
  };
}

function typeOf({ type, name }: Header): ArchiveMember['type'] {
  switch (type) {
    case 'directory':
      return 'directory';
    case 'link':
    case 'symlink':
      return 'link';
    case 'file':
    case 'contiguous-file':
      // Old archives mark folders by a slash alone.
      return name.endsWith('/') ? 'directory' : 'file';
    default:
      return 'other';
  }
}
