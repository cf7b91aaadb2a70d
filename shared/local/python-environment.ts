import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { DandelionError } from '../errors.ts';

const run = promisify(execFile);
const installWithinMs = 900_000;
const isWindows = process.platform === 'win32';

export interface EnvironmentOptions {
  /** Files of exact pins of everything needed, or the only one; other pins are another environment. */
  requirements: string | readonly [string, ...string[]];
  /** Oldest Python the pins can be installed under, as [3, 11]. */
  atLeast: [number, number];
  /** What needs Python, to begin a sentence with. */
  purpose: string;
  /** Told when the first use makes it wait. */
  say?: (sentence: string) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Makes a private virtual environment with pinned packages on first use, in the cache folder of this account; later
 * calls, of any project folder, find it there. With `uv` where it is installed, else with `venv` and `pip`.
 *
 * @returns path of its interpreter
 * @throws DandelionError `bad-config` when there is no Python, only one that is too old, or the packages cannot be had
 */
export async function preparePython(options: EnvironmentOptions): Promise<string> {
  const files = filesOf(options);
  const pins = createHash('sha256');
  for (const file of files) pins.update(await readFile(file));
  const digest = pins.digest('hex').slice(0, 12);
  const folder = join(cacheFolder(), `${basename(files[0], '.txt')}-${digest}`);
  if (existsSync(interpreterIn(folder))) return interpreterIn(folder);
  const python = await findPython(options);
  options.say?.(`Installing ${basename(files[0])} into ${folder}: a minute or two, once ...`);
  // Filled under another name: one that was cut off never looks ready, and two at once do not meet.
  const draft = `${folder}.${process.pid}`;
  try {
    await mkdir(dirname(folder), { recursive: true });
    await install(draft, python, options);
    await rename(draft, folder).catch((error: unknown) => {
      if (!existsSync(interpreterIn(folder))) throw error;
    });
    return interpreterIn(folder);
  } catch (cause) {
    options.signal?.throwIfAborted();
    throw new DandelionError(
      'bad-config',
      `${options.purpose} needs the Python packages of ${files.join(' and ')}, which could not be installed: ${lastWords(cause)}`,
      { cause },
    );
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

function filesOf({ requirements }: EnvironmentOptions): readonly [string, ...string[]] {
  return typeof requirements === 'string' ? [requirements] : requirements;
}

/** Where programs keep what they can make again. */
function cacheFolder(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const ofMac = process.platform === 'darwin' ? join(homedir(), 'Library/Caches') : undefined;
  return join(XDG_CACHE_HOME || LOCALAPPDATA || ofMac || join(homedir(), '.cache'), 'dandelion');
}

function interpreterIn(environment: string): string {
  return join(environment, isWindows ? 'Scripts/python.exe' : 'bin/python');
}

async function findPython({ atLeast, purpose }: EnvironmentOptions): Promise<string> {
  const [major, least] = atLeast;
  const newer = [14, 13, 12, 11].filter((minor) => minor >= least).map((minor) => `python${major}.${minor}`);
  const seen: string[] = [];
  for (const program of isWindows ? ['python', 'py'] : ['python3', ...newer, 'python']) {
    const question = ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])'];
    const said = await run(program, question, { timeout: 30_000 }).catch(() => undefined);
    if (said === undefined) continue;
    const version = said.stdout.trim();
    const [foundMajor = 0, foundMinor = 0] = version.split('.').map(Number);
    if (foundMajor === major && foundMinor >= least) return program;
    seen.push(`${program} is ${version}`);
  }
  const found = seen.length === 0 ? 'no Python is on the PATH' : seen.join(', ');
  throw new DandelionError(
    'bad-config',
    `${purpose} needs Python ${atLeast.join('.')} or newer, and ${found}: install it from https://www.python.org.`,
  );
}

async function install(folder: string, python: string, options: EnvironmentOptions): Promise<void> {
  const { signal } = options;
  const pins = filesOf(options).flatMap((file) => ['--requirement', file]);
  const limits = { timeout: installWithinMs, signal, maxBuffer: 64 * 1024 * 1024 };
  const hasUv = await run('uv', ['--version']).then(
    () => true,
    () => false,
  );
  if (hasUv) {
    await run('uv', ['venv', '--quiet', '--python', python, folder], limits);
    const words = ['pip', 'install', '--quiet', '--no-deps', '--compile-bytecode', ...pins];
    await run('uv', words, { ...limits, env: { ...process.env, VIRTUAL_ENV: folder } });
    return;
  }
  await run(python, ['-m', 'venv', folder], limits);
  const quiet = ['--quiet', '--no-deps', '--disable-pip-version-check', '--no-input'];
  await run(interpreterIn(folder), ['-m', 'pip', 'install', ...quiet, ...pins], limits);
}

/** What a program said last is usually why it failed. */
function lastWords(error: unknown): string {
  const { stderr = '', message } = error as { stderr?: string; message?: string };
  const lines = stderr.trim() === '' ? [message ?? String(error)] : stderr.trim().split('\n');
  return (lines.filter((line) => /error/i.test(line)).at(-1) ?? lines.at(-1) ?? '').trim();
}
