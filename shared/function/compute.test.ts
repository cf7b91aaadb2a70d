import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import { type Compute, endComputations, runJob, startCompute, workerBeside } from './compute.ts';
import { recordingLogger } from './fixtures/lines.ts';
import type { FixtureJobs } from './fixtures/worker.ts';

const file = new URL('fixtures/worker.ts', import.meta.url);
const stop = new DandelionError('lease-lost', 'Another attempt took this run over.');

interface Progress {
  done: number;
  total: number;
  note: string | undefined;
}

/** What a handler has, with everything that is told to it kept. */
function recordingContext() {
  const controller = new AbortController();
  const { logger, lines } = recordingLogger('computing');
  const progress: Progress[] = [];
  const context = {
    signal: controller.signal,
    log: logger,
    progress: (done: number, total: number, note?: string) => void progress.push({ done, total, note }),
  };
  return { controller, context, lines, progress };
}

const open: Compute<FixtureJobs>[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((compute) => compute.close()));
});

function start(context = recordingContext().context): Compute<FixtureJobs> {
  const compute = startCompute<FixtureJobs>(file, context);
  open.push(compute);
  return compute;
}

describe('a job', () => {
  it('answers with what it returned, its progress, metrics and log lines reach the caller', async () => {
    const { context, lines, progress } = recordingContext();
    const metrics: unknown[] = [];
    const onMetric = (metric: unknown) => void metrics.push(metric);
    const numbers = Float32Array.of(1, 2);
    const { doubled } = await runJob<FixtureJobs, 'double'>(file, 'double', numbers, context, { onMetric });
    expect(metrics).toEqual([{ key: 'numbers', value: 2, step: 1 }]);
    expect(doubled).toEqual(Float32Array.of(2, 4));
    expect(progress).toEqual([{ done: 1, total: 2, note: 'half way' }]);
    expect(lines).toMatchObject([
      { 'log.level': 'warn', message: 'doubling', numbers: 2, error: { message: 'inside' } },
    ]);
  });

  it('takes numbers that are given away without a copy, and leaves all others to the caller', async () => {
    const compute = start();
    const kept = Float32Array.of(1);
    const given = Float32Array.of(1);
    await compute.run('double', kept);
    await compute.run('double', given, [given]);
    expect([kept.length, given.length]).toEqual([1, 0]);
  });

  it('finds what an earlier job of its thread left, and nothing of other threads', async () => {
    const [first, second] = [start(), start()];
    await first.run('double', Float32Array.of());
    expect((await first.run('double', Float32Array.of())).calls).toBe(2);
    expect((await second.run('double', Float32Array.of())).calls).toBe(1);
  });

  it('leaves the event loop of its caller alone', async () => {
    const flag = new SharedArrayBuffer(4);
    const blocking = start().run('block', flag);
    for (let turns = 0; turns < 1000; turns++) await turn();
    Atomics.store(new Int32Array(flag), 0, 1);
    Atomics.notify(new Int32Array(flag), 0);
    expect(await blocking).toBe('unblocked');
  });
});

describe('a job that fails', () => {
  it('keeps code, sentence and details of our errors', async () => {
    const failing = start().run('fail', { code: 'too-few-images', message: 'Add photos.' });
    await expect(failing).rejects.toBeInstanceOf(DandelionError);
    await expect(failing).rejects.toMatchObject({
      ...{ code: 'too-few-images', message: 'Add photos.', status: 422 },
      ...{ retryAfterMs: 1500, extra: { needed: 5 } },
    });
  });

  it('shows others as internal, with the stack of the worker for the log', async () => {
    const failing = start().run('fail', { message: 'secret' });
    const cause = { name: 'TypeError', message: 'secret', stack: expect.stringContaining('worker.ts') };
    await expect(failing).rejects.toMatchObject({ code: 'internal', cause });
  });

  it('leaves its thread usable', async () => {
    const compute = start();
    await expect(compute.run('fail', { message: 'x' })).rejects.toThrow();
    expect((await compute.run('double', Float32Array.of(3))).doubled).toEqual(Float32Array.of(6));
  });
});

describe('a thread that dies', () => {
  it('fails every job under way and every later one', async () => {
    const compute = start();
    const waiting = compute.run('patient', undefined);
    const crashing = compute.run('crash', undefined as never);
    const died = { code: 'compute-died', cause: expect.objectContaining({ message: 'nobody caught this' }) };
    await expect(crashing).rejects.toMatchObject(died);
    await expect(waiting).rejects.toMatchObject(died);
    await expect(compute.run('double', Float32Array.of())).rejects.toMatchObject({ code: 'compute-died' });
  });

  it.each<['leave' | 'exhaustHeap' | 'exhaustNumbers', string, string]>([
    ['leave', 'compute-died', 'fixtures/worker.ts'],
    ['exhaustHeap', 'out-of-memory', 'more memory'],
    ['exhaustNumbers', 'out-of-memory', 'more memory'],
  ])('says why: %s', async (name, code, words) => {
    const { context } = recordingContext();
    const dying = runJob<FixtureJobs, typeof name>(file, name, undefined as never, context, {
      heapLimitMb: 24,
    });
    await expect(dying).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
  });

  it('is one whose file is not there', async () => {
    const missing = new URL('fixtures/missing.ts', import.meta.url);
    const starting = runJob<FixtureJobs, 'leave'>(
      missing,
      'leave',
      undefined as never,
      recordingContext().context,
    );
    await expect(starting).rejects.toMatchObject({ code: 'compute-died' });
  });
});

describe('an abort', () => {
  it('reaches the job, and its caller gets the reason', async () => {
    const { controller, context, progress } = recordingContext();
    const working = runJob<FixtureJobs, 'patient'>(file, 'patient', undefined, context);
    await expect.poll(() => progress.length).toBe(1);
    controller.abort(stop);
    await expect(working).rejects.toBe(stop);
  });

  it('before the start lets nothing run', async () => {
    const { controller, context, progress } = recordingContext();
    controller.abort(stop);
    const working = runJob<FixtureJobs, 'patient'>(file, 'patient', undefined, context);
    await expect(working).rejects.toBe(stop);
    expect(progress).toEqual([]);
  });

  it('ends the thread of a job that does not listen, in the end', async () => {
    const { controller, context, progress, lines } = recordingContext();
    const working = runJob<FixtureJobs, 'deaf'>(file, 'deaf', undefined as never, context);
    await expect.poll(() => progress.length).toBe(1);
    controller.abort(stop);
    await expect(working).rejects.toBe(stop);
    expect(lines).toMatchObject([{ message: expect.stringContaining('did not stop') }]);
  });
});

describe('the end', () => {
  it('waits for jobs that still run', async () => {
    const compute = start();
    const flag = new SharedArrayBuffer(4);
    const blocking = compute.run('block', flag);
    const ended = endComputations();
    Atomics.store(new Int32Array(flag), 0, 1);
    Atomics.notify(new Int32Array(flag), 0);
    expect(await blocking).toBe('unblocked');
    await ended;
    await expect(compute.run('double', Float32Array.of())).rejects.toMatchObject({ code: 'compute-died' });
  });
});

it('finds the worker beside the source of a handler, and beside its bundle', () => {
  expect(workerBeside('file:///a/functions/train/handler.ts?x').href).toBe(
    'file:///a/functions/train/worker.ts',
  );
  expect(workerBeside('file:///app/index.mjs').href).toBe('file:///app/worker.mjs');
});
