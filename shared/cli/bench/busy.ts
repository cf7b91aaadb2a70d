import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** Above this share, what others do on the machine shows in every figure. */
export const quietUpTo = 0.15;

/**
 * The share of processor time that is in use, 0 to 1: before the bench does anything, that is what others take.
 *
 * Ratios suffer from it too, and not evenly: threads that spin while they wait, onnxruntime's default, lose more to
 * neighbours than threads that sleep.
 */
export async function busyShare(sampleMs: number): Promise<number> {
  const before = processorTimes();
  await sleep(sampleMs);
  const after = processorTimes();
  const total = after.total - before.total;
  return total === 0 ? 0 : 1 - (after.idle - before.idle) / total;
}

function processorTimes(): { idle: number; total: number } {
  const times = cpus().map((processor) => processor.times);
  const sum = (pick: (time: (typeof times)[number]) => number) =>
    times.reduce((total, time) => total + pick(time), 0);
  const idle = sum((time) => time.idle);
  return { idle, total: idle + sum((time) => time.user + time.nice + time.sys + time.irq) };
}
