import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Resident memory of a process and all it started, in MB (10^6 bytes); what processes share counts for each.
 * NaN where there is no `ps`.
 */
export async function residentMegabytes(processId: number): Promise<number> {
  const listing = await run('ps', ['-e', '-o', 'pid=,ppid=,rss=']).catch(() => undefined);
  if (listing === undefined) return Number.NaN;
  const rows = listing.stdout
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number));
  const family = new Set([processId]);
  for (let before = 0; before !== family.size; ) {
    before = family.size;
    for (const [id = 0, parent = 0] of rows) if (family.has(parent)) family.add(id);
  }
  const kibibytes = rows.reduce((sum, [id = 0, , size = 0]) => sum + (family.has(id) ? size : 0), 0);
  return (kibibytes * 1024) / 1e6;
}

/** The most a process ever had resident, in MB (10^6 bytes). Linux only; NaN elsewhere. */
export async function peakMegabytes(processId: number): Promise<number> {
  const status = await readFile(`/proc/${processId}/status`, 'utf8').catch(() => '');
  const kibibytes = /^VmHWM:\s+(\d+) kB/m.exec(status)?.[1];
  return kibibytes === undefined ? Number.NaN : (Number(kibibytes) * 1024) / 1e6;
}
