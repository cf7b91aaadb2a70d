import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { type Entry, fromBuffer, type ZipFile } from 'yauzl';
import { DandelionError } from '../errors.ts';

const openZip = promisify(
  (bytes: Buffer, done: (error: Error | null, zip: ZipFile) => void) =>
    void fromBuffer(bytes, { lazyEntries: false, autoClose: false }, done),
);

function entriesOf(zip: ZipFile): Promise<Entry[]> {
  return new Promise((resolve, reject) => {
    const entries: Entry[] = [];
    zip.on('entry', (entry: Entry) => entries.push(entry));
    zip.on('end', () => resolve(entries));
    zip.on('error', reject);
  });
}

/** True when the bytes start like a zip archive (a wheel, or a weights file of torch 1.6 and later). */
export function isZip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 0x03 && bytes[3] === 0x04;
}

/**
 * Unpacks the files of a zip archive whose names are wanted.
 *
 * @param maxBytes what all of them together may unpack to
 * @returns file name to contents
 * @throws DandelionError `bad-archive` when the archive is damaged or unpacks to more than `maxBytes`
 */
export async function readZip(
  bytes: Uint8Array,
  wanted: (name: string) => boolean,
  maxBytes: number,
): Promise<Map<string, Buffer>> {
  try {
    const zip = await openZip(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    const entries = (await entriesOf(zip)).filter((entry) => wanted(entry.fileName));
    const total = entries.reduce((sum, entry) => sum + entry.uncompressedSize, 0);
    if (total > maxBytes) {
      throw new DandelionError(
        'bad-archive',
        `The archive unpacks to ${total} bytes; ${maxBytes} are allowed.`,
      );
    }
    const open = promisify(zip.openReadStream.bind(zip)) as (entry: Entry) => Promise<NodeJS.ReadableStream>;
    const files = new Map<string, Buffer>();
    for (const entry of entries) files.set(entry.fileName, await buffer(await open(entry)));
    return files;
  } catch (cause) {
    if (cause instanceof DandelionError) throw cause;
    throw new DandelionError('bad-archive', 'The zip archive is damaged; get it again.', { cause });
  }
}
