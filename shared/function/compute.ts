import { Worker } from 'node:worker_threads';
import { type Logger, pino } from 'pino';
import { DandelionError } from '../errors.ts';
import { settlesWithin } from './abort.ts';
import {
  type FromWorker,
  type JobMetric,
  packError,
  type ToWorker,
  unpackError,
  type WorkerData,
} from './compute-messages.ts';
import type { JobTable } from './compute-worker.ts';
import type { FunctionContext } from './types.ts';

/** Whose signal ends the work, and who hears of it; a handler's context is one. */
export type ComputeContext = Pick<FunctionContext, 'signal' | 'log' | 'progress'>;

export interface ComputeOptions {
  /** Largest JavaScript heap of the worker in MiB; typed arrays are not in it. Default: that of the process. */
  heapLimitMb?: number;
  /** Room in it for new objects, in MiB: where few are made, it need not be large. Default: that of the process. */
  newObjectsMb?: number;
  /** Told what the jobs measure while they work. */
  onMetric?: (metric: JobMetric) => void;
}

/** A worker thread with jobs, so that whatever blocks there, the main thread answers. */
export interface Compute<Jobs extends JobTable> {
  /**
   * Runs a job. Jobs asked for at the same time share the thread.
   *
   * @param moved typed arrays in the input that the caller gives away instead of having them copied
   * @throws DandelionError what the job threw, with its code; the signal's reason once it is aborted;
   *   `compute-died` or `out-of-memory` when the thread ended before the answer
   */
  run<Name extends keyof Jobs & string>(
    name: Name,
    input: Parameters<Jobs[Name]>[0],
    moved?: ArrayBufferView[],
  ): Promise<Awaited<ReturnType<Jobs[Name]>>>;
  /** Ends the thread as soon as its jobs have; resolves when it is gone. */
  close(): Promise<void>;
}

/** How long a job may go on after it was told to stop, before its thread is ended from outside. */
const OBEY_MS = 5000;

/** Threads that are not gone yet. */
const alive = new Set<() => Promise<void>>();

/** The worker file beside a function's handler: `worker.ts` in the source, `worker.mjs` beside a bundle. */
export function workerBeside(moduleUrl: string): URL {
  const isSource = new URL(moduleUrl).pathname.endsWith('.ts');
  return new URL(isSource ? './worker.ts' : './worker.mjs', moduleUrl);
}

/** Runs one job in a worker thread of its own, which is gone when this settles (see {@link Compute}). */
export async function runJob<Jobs extends JobTable, Name extends keyof Jobs & string>(
  file: URL,
  name: Name,
  input: Parameters<Jobs[Name]>[0],
  context: ComputeContext,
  options: ComputeOptions & { moved?: ArrayBufferView[] } = {},
): Promise<Awaited<ReturnType<Jobs[Name]>>> {
  const compute = startCompute<Jobs>(file, context, options);
  try {
    return await compute.run(name, input, options.moved);
  } finally {
    await compute.close();
  }
}

interface Pending {
  resolve(output: unknown): void;
  reject(error: unknown): void;
}

/**
 * Starts a worker thread that keeps its state between jobs, such as a loaded model. `close` it.
 *
 * A thread that computes in native code must not be ended from outside: onnxruntime then aborts the whole process
 * (seen with 1.30). So an abort is passed to the job, which stops between two pieces of work.
 */
export function startCompute<Jobs extends JobTable>(
  file: URL,
  context: ComputeContext,
  { heapLimitMb, newObjectsMb, onMetric }: ComputeOptions = {},
): Compute<Jobs> {
  const { signal, log } = context;
  const workerData: WorkerData = { level: log.level };
  const worker = new Worker(file, {
    workerData,
    resourceLimits: {
      ...(heapLimitMb === undefined ? {} : { maxOldGenerationSizeMb: heapLimitMb }),
      ...(newObjectsMb === undefined ? {} : { maxYoungGenerationSizeMb: newObjectsMb }),
    },
  });
  const tell = (message: ToWorker, moved: ArrayBuffer[] = []) => worker.postMessage(message, moved);
  const pending = new Map<number, Pending>();
  let jobs = 0;
  let death: unknown;
  let exited = false;

  const gone = new Promise<void>((resolve) => {
    worker.once('exit', () => {
      exited = true;
      signal.removeEventListener('abort', abort);
      alive.delete(end);
      for (const { reject } of pending.values()) reject(signal.aborted ? signal.reason : died(file, death));
      pending.clear();
      resolve();
    });
  });
  const end = async (): Promise<void> => {
    tell({ kind: 'close' });
    if (await settlesWithin(gone, OBEY_MS)) return;
    log.warn(`a computation did not stop within ${OBEY_MS} ms; its thread is ended`);
    await worker.terminate();
  };
  const abort = () => {
    tell({ kind: 'abort', reason: packError(signal.reason) });
    void end();
  };

  worker.on('error', (error) => {
    death = error;
  });
  worker.on('message', (message: FromWorker) => {
    if (message.kind === 'log') return writeLine(log, message.line);
    if (message.kind === 'progress') return context.progress(message.done, message.total, message.note);
    if (message.kind === 'metric') return onMetric?.(message.metric);
    const { resolve, reject } = pending.get(message.id) ?? {};
    pending.delete(message.id);
    if (message.kind === 'answer') return resolve?.(message.output);
    reject?.(signal.aborted ? signal.reason : unpackError(message.error));
  });
  alive.add(end);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });

  return {
    run(name, input, moved = []) {
      if (exited) return Promise.reject(signal.aborted ? signal.reason : died(file, death));
      jobs += 1;
      const id = jobs;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve: resolve as Pending['resolve'], reject });
        tell({ kind: 'run', id, job: name, input }, moved.map(ownedBuffer));
      });
    },
    async close() {
      tell({ kind: 'close' });
      // A job that nobody waits for any more may still run; it is waited for as long as it works.
      await gone;
    },
  };
}

/** Ends all worker threads, each when its jobs have ended: a process must not end while native code runs in one. */
export async function endComputations(): Promise<void> {
  await Promise.all([...alive].map((end) => end()));
}

function died(file: URL, cause: unknown): DandelionError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'ERR_WORKER_OUT_OF_MEMORY') {
    return new DandelionError(
      'out-of-memory',
      'The computation needs more memory than its thread may use; give the function more memory or less data.',
      { cause },
    );
  }
  const name = file.pathname.split('/').slice(-2).join('/');
  return new DandelionError(
    'compute-died',
    `The thread of ${name} ended before it answered; its log says why.`,
    {
      cause,
    },
  );
}

function ownedBuffer(view: ArrayBufferView): ArrayBuffer {
  if (view.buffer instanceof ArrayBuffer) return view.buffer;
  throw new DandelionError('internal', 'Shared memory cannot be given away.');
}

function writeLine(log: Logger, line: string): void {
  const { level, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const label = pino.levels.labels[Number(level)] ?? 'info';
  const error = typeof err === 'object' && err !== null ? { err: Object.assign(new Error(), err) } : {};
  log[label as 'info']({ ...fields, ...error }, String(msg ?? ''));
}
