import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';

/**
 * Makes the data folder if it is not there, and proves that it can be written to.
 *
 * @throws DandelionError `bad-config`
 */
export async function makeDataDir(dataDir: string): Promise<void> {
  const probe = join(dataDir, `.probe-${process.pid}`);
  try {
    await makeFolder(dataDir);
    // It may be another account's, or on a disk that is read-only or full.
    await writeFile(probe, 'probe');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new DandelionError(
      'bad-config',
      `The data folder ${dataDir} cannot be used: ${why}. Make it writable, or choose another one with --data.`,
      { cause: error },
    );
  } finally {
    await rm(probe, { force: true }).catch(() => {});
  }
}

/** One folder after the other: the recursive call of Node never returns below folders that take none, as /proc. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (hasErrorCode(error, 'ENOENT') && dirname(path) !== path) {
      await makeFolder(dirname(path));
      await mkdir(path);
      return;
    }
    // Read-only disks refuse folders that are there in various words.
    const isThere = (await stat(path).catch(() => undefined))?.isDirectory() === true;
    if (!isThere) throw error;
  }
}
