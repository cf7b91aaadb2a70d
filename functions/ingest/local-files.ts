import { constants } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { isAbsolute, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DandelionError } from '../../shared/errors.ts';

/**
 * The path of a `file://` address.
 *
 * @throws DandelionError `forbidden` for addresses of other hosts and what is no path here
 */
export function pathOfFileUrl(uri: string): string {
  try {
    return fileURLToPath(uri);
  } catch (error) {
    throw new DandelionError('forbidden', `${uri} does not name a file of this machine.`, { cause: error });
  }
}

/**
 * Follows every link of a path and returns where it really leads, if that is in or below one of the roots.
 *
 * @throws DandelionError `forbidden` outside the roots, `file-unreadable` when there is nothing
 */
export async function resolveBeneath(path: string, roots: readonly string[]): Promise<string> {
  const real = await realpath(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  for (const root of roots) {
    // A root that does not exist holds nothing.
    const realRoot = await realpath(root).catch(() => undefined);
    if (realRoot !== undefined && isBeneath(real, realRoot)) return real;
  }
  const allowed = roots.length === 0 ? 'none' : roots.join(', ');
  throw new DandelionError(
    'forbidden',
    `${path} is outside the folders that may be read (${allowed}); add its folder to INGEST_FILE_ROOTS.`,
  );
}

/** True for the root itself and everything below it; both paths must be free of links. */
export function isBeneath(path: string, root: string): boolean {
  const way = relative(root, path);
  return way === '' || (way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way));
}

/**
 * Reads a regular file whole.
 *
 * @throws DandelionError `file-unreadable`, `image-too-large`
 */
export async function readFileCapped(path: string, maxBytes: number): Promise<Uint8Array> {
  const file = await openRegular(path);
  try {
    const { size } = await file.stat();
    if (size > maxBytes) {
      throw new DandelionError('image-too-large', `The file is larger than the limit of ${maxBytes} bytes.`);
    }
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/**
 * Opens a regular file for reading: no device, no pipe that would be waited on for ever.
 *
 * @throws DandelionError `file-unreadable`
 */
export async function openRegular(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);
  const file = await open(path, flags).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  const found = await file.stat();
  if (found.isFile()) return file;
  await file.close();
  throw new DandelionError('file-unreadable', `${path} is not a regular file.`);
}

function unreadable(path: string, cause: unknown): DandelionError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : '';
  const why =
    code === 'ENOENT' || code === 'ENOTDIR'
      ? 'There is no file'
      : code === 'EACCES' || code === 'EPERM'
        ? 'This process may not read the file'
        : 'The file cannot be read';
  return new DandelionError('file-unreadable', `${why} ${path}.`, { cause });
}
