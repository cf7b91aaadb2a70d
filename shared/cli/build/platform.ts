import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DandelionError } from '../../errors.ts';
import type { Lock } from './lock.ts';

/** What native packages are chosen by, in the words of Node's `process.platform` and `process.arch`. */
export interface Platform {
  os: string;
  cpu: string;
}

const containerPlatforms: Record<string, Platform> = {
  'linux/amd64': { os: 'linux', cpu: 'x64' },
  'linux/arm64': { os: 'linux', cpu: 'arm64' },
};

/** The machine that this runs on. */
export const ownPlatform: Platform = { os: process.platform, cpu: process.arch };

/**
 * The platform of a container, as `linux/arm64`.
 *
 * @throws DandelionError `bad-config`
 */
export function containerPlatform(name: string): Platform {
  const platform = containerPlatforms[name];
  if (platform !== undefined) return platform;
  const known = Object.keys(containerPlatforms).join(' and ');
  throw new DandelionError('bad-config', `--platform ${name}: there are ${known}.`);
}

/** True when native packages of the platform are those of this machine. */
export function isOwn({ os, cpu }: Platform): boolean {
  return os === ownPlatform.os && cpu === ownPlatform.cpu;
}

/** Folder of a platform's bundles: `dist`, and one below it for each platform that is not this machine's. */
export function bundlesOf(dist: string, platform: Platform): string {
  return isOwn(platform) ? dist : join(dist, 'platforms', `${platform.os}-${platform.cpu}`);
}

/**
 * Installs what the lock file names for another platform alone, so that its images can be made here: by the lock's
 * digests, without running anything, outside of the machine's own `node_modules`.
 *
 * @returns the folder named `node_modules`
 * @throws DandelionError `upstream-unavailable` when npm cannot fetch them
 */
export async function installForPlatform(lock: Lock, platform: Platform, dist: string): Promise<string> {
  const folder = join(bundlesOf(dist, platform), 'packages');
  const modules = join(folder, 'node_modules');
  const packages = Object.entries(lock.packages).filter(
    ([path, entry]) =>
      path.startsWith('node_modules/@img/') &&
      entry.os?.includes(platform.os) &&
      entry.cpu?.includes(platform.cpu) &&
      (entry.libc?.includes('glibc') ?? true),
  );
  const dependencies = Object.fromEntries(
    packages.map(([path, { version = '' }]) => [path.replace('node_modules/', ''), version]),
  );
  const manifest = { name: 'packages', version: '0.0.0', dependencies };
  const wanted = JSON.stringify(manifest);
  const done = join(folder, 'done');
  if ((await readFile(done, 'utf8').catch(() => '')) === wanted) return modules;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const partLock = {
    ...manifest,
    lockfileVersion: 3,
    packages: { '': manifest, ...Object.fromEntries(packages) },
  };
  await writeFile(join(folder, 'package.json'), wanted);
  await writeFile(join(folder, 'package-lock.json'), JSON.stringify(partLock));
  // npm refuses packages of another platform unless it is forced to; digests are checked all the same.
  const words = ['ci', '--force', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  try {
    execFileSync('npm', words, {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe'],
      shell: process.platform === 'win32',
    });
  } catch (cause) {
    throw new DandelionError(
      'upstream-unavailable',
      `The packages for ${platform.os} on ${platform.cpu} could not be installed: ${reasonOf(cause)}. Check that the npm registry can be reached.`,
      { cause },
    );
  }
  await writeFile(done, wanted);
  return modules;
}

function reasonOf(error: unknown): string {
  const stderr = (error as { stderr?: Buffer }).stderr?.toString().trim();
  return stderr ? (stderr.split('\n')[0] ?? stderr) : String(error);
}
