import { randomUUID } from 'node:crypto';
import { access, constants, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DandelionError } from '../../errors.ts';
import type { Check, Finding } from './check.ts';

/** Below this a training of a few thousand photos may not end. */
const FREE_AT_LEAST_BYTES = 1024 ** 3;

/**
 * Proves that a folder takes files and has room; one that is not there yet is not made, its parent answers for it.
 *
 * @param choose how another folder is named
 * @throws DandelionError `bad-config`, `store-full`
 */
export async function lookAtFolder(path: string, choose: string): Promise<Finding> {
  const place = await nearestFolder(path);
  try {
    await (place === path ? writeProbe(path) : access(place, constants.W_OK | constants.X_OK));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DandelionError(
      'bad-config',
      `The folder ${path} cannot be written to: ${why}. Make it writable, or name another one by ${choose}.`,
      { cause },
    );
  }
  const { bavail, bsize } = await statfs(place);
  const free = `${((bavail * bsize) / 1024 ** 3).toFixed(1)} GiB free`;
  if (bavail * bsize < FREE_AT_LEAST_BYTES) {
    throw new DandelionError('store-full', `The disk of ${path} is nearly full (${free}): make room there.`);
  }
  return { status: 'ok', detail: `${path}, ${free}${place === path ? '' : ', made at the first start'}` };
}

export const dataFolder: Check = {
  name: 'Data folder',
  look: ({ dataDir }) => lookAtFolder(dataDir, '--data'),
};

/** The folder itself, or the first above it that exists. A file in its place is left to the probe. */
async function nearestFolder(path: string): Promise<string> {
  for (let place = path; ; place = dirname(place)) {
    const found = await stat(place).catch(() => undefined);
    if (found !== undefined || dirname(place) === place) return place;
  }
}

async function writeProbe(folder: string): Promise<void> {
  const probe = join(folder, `.probe-${randomUUID()}`);
  try {
    await writeFile(probe, 'probe');
  } finally {
    await rm(probe, { force: true }).catch(() => {});
  }
}
