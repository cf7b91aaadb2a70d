import { DandelionError } from '../../shared/errors.ts';

/** Bounds on what an archive may unpack to. */
export interface ArchiveLimits {
  maxPhotoBytes: number;
  maxUnpackedBytes: number;
  maxEntries: number;
}

/** A member of an archive, as the archive describes it. */
export interface ArchiveMember {
  /** As written, backslashes turned to slashes. */
  name: string;
  type: 'file' | 'directory' | 'link' | 'other';
  /**
   * Valid until the reader of the archive is closed.
   *
   * @throws DandelionError `image-too-large`, or `bad-archive` when the member is damaged or a bomb
   */
  open(): Promise<Uint8Array>;
}

/** Reads an archive from its start. */
export interface ArchiveReader {
  /** `content: false` lists only: nothing is kept in memory, `open` must not be called. */
  members(options: { content: boolean }): AsyncIterable<ArchiveMember>;
  close(): Promise<void>;
}

/** Photos are compressed already, so that an honest archive hardly shrinks; deflate reaches 1032 : 1 on zeros. */
const MAX_RATIO = 200;
/** Below this size a ratio says little: small text files and drawings compress well. */
const RATIO_GRACE_BYTES = 8 * 1024 * 1024;

/** True when this many bytes out of that many packed ones can only be a decompression bomb. */
export function isBomb(unpackedBytes: number, packedBytes: number): boolean {
  return unpackedBytes > RATIO_GRACE_BYTES && unpackedBytes > MAX_RATIO * packedBytes;
}

/** Gathers a stream of known size. Stops as soon as there is more than `sizeBytes`. */
export async function gather(stream: AsyncIterable<Uint8Array>, sizeBytes: number): Promise<Uint8Array> {
  const bytes = Buffer.alloc(sizeBytes);
  let length = 0;
  for await (const chunk of stream) {
    if (length + chunk.byteLength > sizeBytes) {
      throw badArchive('The entry is longer than the archive says.');
    }
    bytes.set(chunk, length);
    length += chunk.byteLength;
  }
  if (length === sizeBytes) return bytes;
  throw badArchive('The entry is shorter than the archive says.');
}

/** The error of a photo beyond the size limit. */
export function photoTooLarge(maxBytes: number): DandelionError {
  return new DandelionError('image-too-large', `The file is larger than the limit of ${maxBytes} bytes.`);
}

/** The error of an archive that cannot be used; `why` continues a sentence. */
export function badArchive(why: string, cause?: unknown): DandelionError {
  return new DandelionError('bad-archive', why, { cause });
}
