import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A process with the time it has had so far. */
export type ProcessorTimes = { processId: number; command: string; ms: number }[];

/** Processor time of this process and of all that it, or what it started, started; empty where there is no `ps`. */
export async function processorTimes(): Promise<ProcessorTimes> {
  const listing = await run('ps', ['-e', '-o', 'pid=,ppid=,args=']).catch(() => undefined);
  const rows = (listing?.stdout ?? '').split('\n').flatMap((line) => {
    const [, id, parent, command = ''] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
    return id === undefined ? [] : [{ processId: Number(id), parent: Number(parent), command }];
  });
  const family = new Set([process.pid]);
  for (let before = 0; before !== family.size; ) {
    before = family.size;
    for (const { processId, parent } of rows) if (family.has(parent)) family.add(processId);
  }
  return Promise.all(
    rows
      .filter(({ processId }) => family.has(processId))
      .map(async ({ processId, command }) => ({ processId, command, ms: await processorMs(processId) })),
  );
}

/**
 * Processor time that the threads of a process have had so far, in ms. What others do on the machine lengthens a
 * photo's way, but hardly this. Linux only; NaN elsewhere.
 */
export async function processorMs(processId: number): Promise<number> {
  const threads = await readdir(`/proc/${processId}/task`).catch(() => undefined);
  if (threads === undefined) return Number.NaN;
  const times = await Promise.all(threads.map((thread) => threadMs(processId, thread)));
  return times.reduce((sum, ms) => sum + ms, 0);
}

/** As {@link processorMs}, of the thread that runs the event loop alone. */
export function mainThreadMs(processId: number): Promise<number> {
  return threadMs(processId, String(processId));
}

async function threadMs(processId: number, thread: string): Promise<number> {
  // Of a thread that has just ended there is none.
  const text = await readFile(`/proc/${processId}/task/${thread}/schedstat`, 'utf8').catch(() => '0');
  return Number(text.split(' ')[0]) / 1e6;
}
