import { readdir, readFile } from 'node:fs/promises';

/**
 * Processor time that the threads of a process have had so far, in ms. What others do on the machine lengthens a
 * photo's way, but hardly this. Linux only; NaN elsewhere.
 */
export async function processorMs(processId: number): Promise<number> {
  const tasks = `/proc/${processId}/task`;
  const threads = await readdir(tasks).catch(() => undefined);
  if (threads === undefined) return Number.NaN;
  const times = await Promise.all(
    threads.map(async (thread) => {
      // Of a thread that has just ended there is none.
      const text = await readFile(`${tasks}/${thread}/schedstat`, 'utf8').catch(() => '0');
      return Number(text.split(' ')[0]);
    }),
  );
  return times.reduce((sum, nanoseconds) => sum + nanoseconds, 0) / 1e6;
}
