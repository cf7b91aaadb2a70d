import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrorCode } from '../system-errors.ts';

/** Whoever holds a lock does so for a few writes; one this old was left by a process that is gone. */
const STALE_AFTER_MS = 10_000;
const PAUSE_MS = 5;

/**
 * Waits for a lock between processes that share a folder, and takes it.
 *
 * Each taking is a file of its own, one number above the last: `{path}~{number}`. The highest number holds the lock,
 * until its file is empty, its process is dead, or it is too old (the process id may live again, or be another
 * machine's). Nobody ever takes a lock away from another, so that of many who find it left only one gets it. A file
 * appears with its content (as a link to a finished one), so that a kill at any moment leaves a lock that can be judged.
 *
 * @returns the way to give it back
 * @throws what the file system throws, leaving no lock
 */
export async function lockFile(path: string): Promise<() => Promise<void>> {
  const draft = `${path}.${randomBytes(12).toString('hex')}`;
  await mkdir(dirname(path), { recursive: true });
  try {
    await writeFile(draft, `${process.pid} ${hostname()}`);
    for (;;) {
      const taken = await take(path, draft);
      if (taken !== undefined) return () => truncate(taken, 0).catch(() => {});
      await sleep(PAUSE_MS);
    }
  } finally {
    await rm(draft, { force: true });
  }
}

/** @returns the file that holds the lock; `undefined` while another one does */
async function take(path: string, draft: string): Promise<string | undefined> {
  const last = Math.max(0, ...(await numbersOf(path)));
  if (last > 0 && !(await isFree(`${path}~${last}`))) return undefined;
  const mine = last + 1;
  // Its age counts from here, not from when the waiting began.
  const now = new Date();
  await utimes(draft, now, now);
  if (!(await place(draft, `${path}~${mine}`))) return undefined;
  const numbers = await numbersOf(path);
  if (numbers.some((number) => number > mine)) {
    // The look was long ago: others have come and gone since.
    await rm(`${path}~${mine}`, { force: true });
    return undefined;
  }
  for (const number of numbers) if (number < mine) await rm(`${path}~${number}`, { force: true });
  return `${path}~${mine}`;
}

async function numbersOf(path: string): Promise<number[]> {
  const prefix = `${basename(path)}~`;
  const names = await readdir(dirname(path));
  return names.flatMap((name) => (name.startsWith(prefix) ? [Number(name.slice(prefix.length))] : []));
}

async function place(draft: string, file: string): Promise<boolean> {
  try {
    await link(draft, file);
    return true;
  } catch (error) {
    if (hasErrorCode(error, 'EEXIST')) return false;
    throw error;
  }
}

async function isFree(file: string): Promise<boolean> {
  const holder = await readFile(file, 'utf8').catch(() => undefined);
  const madeAtMs = (await stat(file).catch(() => undefined))?.mtimeMs;
  // Gone: another one has the lock, and cleared up.
  if (holder === undefined || madeAtMs === undefined) return false;
  return holder === '' || Date.now() - madeAtMs > STALE_AFTER_MS || !mayBeAlive(holder);
}

/** Of processes on other machines only the age of their lock tells. */
function mayBeAlive(holder: string): boolean {
  const [processId, host] = holder.split(' ');
  if (host !== hostname()) return true;
  try {
    process.kill(Number(processId), 0);
    return true;
  } catch (error) {
    return hasErrorCode(error, 'EPERM');
  }
}
