import { spawnSync } from 'node:child_process';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A disk of a test's own, small enough to be filled. */
export interface SmallDisk {
  folder: string;
  /** Takes all space but about this much. */
  fill(freeBytes?: number): Promise<void>;
  /** Gives the space back. */
  empty(): Promise<void>;
  remove(): Promise<void>;
}

/**
 * Mounts a RAM disk of 4 MB; `undefined`, said on the console, where mounting is not permitted.
 */
export async function mountSmallDisk(folder: string): Promise<SmallDisk | undefined> {
  await mkdir(folder, { recursive: true });
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder], { encoding: 'utf8' });
  if (mounted.status !== 0) {
    const why = mounted.error?.message ?? mounted.stderr.trim();
    console.warn(`NOT TESTED: a full disk, because this account may not mount one (${why}).`);
    return undefined;
  }
  const filler = join(folder, 'filler');
  return {
    folder,
    async fill(freeBytes = 0) {
      const { bavail, bsize } = await statfs(folder);
      await writeFile(filler, Buffer.alloc(Math.max(0, bavail * bsize - freeBytes)), { flag: 'a' });
    },
    empty: () => rm(filler, { force: true }),
    async remove() {
      spawnSync('umount', ['--lazy', folder]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
