import { stat } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import yauzl, { type Entry, type ZipFile } from 'yauzl';
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

const UNIX = 3;
const FILE_TYPE_MASK = 0o170000;
const REGULAR_FILE = 0o100000;
const SYMBOLIC_LINK = 0o120000;

/**
 * Reads a zip archive: members are listed from its central directory and unpacked one by one, in any order.
 *
 * @throws DandelionError `bad-archive`
 */
export async function readZip(path: string, limits: ArchiveLimits): Promise<ArchiveReader> {
  const { size: packedBytes } = await stat(path);
  const opened: ZipFile[] = [];
  return {
    async *members() {
      // The directory is read afresh each time: keeping its entries would cost a kilobyte each. Names are decoded
      // here, because the parser would give up the whole archive for one bad name.
      const zip = await yauzl.openPromise(path, { autoClose: false, decodeStrings: false }).catch(damaged);
      opened.push(zip);
      if (zip.entryCount > limits.maxEntries) {
        throw badArchive(`it has ${zip.entryCount} entries, more than the limit of ${limits.maxEntries}.`);
      }
      let unpackedBytes = 0;
      for await (const entry of directoryOf(zip)) {
        unpackedBytes += entry.uncompressedSize;
        if (unpackedBytes > limits.maxUnpackedBytes || isBomb(unpackedBytes, packedBytes)) {
          throw badArchive('it unpacks to far more than its size (a decompression bomb).');
        }
        yield memberOf(zip, entry, limits);
      }
    },
    async close() {
      for (const zip of opened.splice(0)) zip.close();
    },
  };
}

async function* directoryOf(zip: ZipFile): AsyncIterable<Entry> {
  try {
    yield* zip.eachEntry();
  } catch (error) {
    damaged(error);
  }
}

function memberOf(zip: ZipFile, entry: Entry, limits: ArchiveLimits): ArchiveMember {
  const name = nameOf(entry);
  const type = typeOf(entry, name);
  if (type === 'file' && entry.isEncrypted()) {
    throw badArchive('it is encrypted; pack it without a password.');
  }
  return { name, type, open: () => unpack(zip, entry, limits) };
}

function nameOf(entry: Entry): string {
  return yauzl
    .getFileNameLowLevel(entry.generalPurposeBitFlag, entry.fileNameRaw, entry.extraFields, false)
    .replaceAll('\\', '/');
}

function typeOf(entry: Entry, name: string): ArchiveMember['type'] {
  if (name.endsWith('/')) return 'directory';
  if (entry.versionMadeBy >>> 8 !== UNIX) return 'file';
  const type = (entry.externalFileAttributes >>> 16) & FILE_TYPE_MASK;
  if (type === SYMBOLIC_LINK) return 'link';
  return type === 0 || type === REGULAR_FILE ? 'file' : 'other';
}

async function unpack(zip: ZipFile, entry: Entry, limits: ArchiveLimits): Promise<Uint8Array> {
  if (entry.uncompressedSize > limits.maxPhotoBytes) throw photoTooLarge(limits.maxPhotoBytes);
  if (isBomb(entry.uncompressedSize, entry.compressedSize)) {
    throw badArchive('The entry unpacks to far more than its size (a decompression bomb).');
  }
  const bytes = await zip
    .openReadStreamPromise(entry)
    .then((stream) => gather(stream, entry.uncompressedSize))
    .catch((error: unknown) => {
      if (error instanceof DandelionError) throw error;
      throw badArchive(`The entry is damaged (${error instanceof Error ? error.message : error}).`, error);
    });
  if (crc32(bytes) !== entry.crc32) throw badArchive('The entry is damaged: its checksum does not match.');
  return bytes;
}

function damaged(error: unknown): never {
  if (error instanceof DandelionError) throw error;
  throw badArchive(`the zip file is damaged (${error instanceof Error ? error.message : error}).`, error);
}
