import { parentPort, workerData } from 'node:worker_threads';
import { type Logger, pino } from 'pino';
import { DandelionError } from '../errors.ts';
import {
  type FromWorker,
  type JobMetric,
  packError,
  type ToWorker,
  unpackError,
  type WorkerData,
} from './compute-messages.ts';

/** What a job may do besides returning a value. */
export interface JobTools {
  /** Aborted with the reason the caller's signal was aborted with; look at it between pieces of work. */
  signal: AbortSignal;
  /** Writes through the logger of the caller. */
  log: Logger;
  /** Tells the caller how far the job is. */
  progress(done: number, total: number, note?: string): void;
  /** Tells the caller a number as it comes; nothing happens where he does not ask for it. */
  metric(metric: JobMetric): void;
}

/** A computation that may block its thread. Input and output are structured clones. */
export type Job = (input: never, tools: JobTools) => unknown;

/** The jobs of one worker file, by name. */
export type JobTable = Record<string, Job>;

/**
 * Makes this thread a worker that runs these jobs: what a function's `worker.ts` calls. Typed arrays in an answer are
 * moved to the caller, not copied, so a job keeps none of them.
 */
export function serveJobs(jobs: JobTable): void {
  const port = parentPort;
  if (port === null) throw new DandelionError('internal', 'Jobs are served in a worker thread only.');
  const controller = new AbortController();
  const say = (message: FromWorker, moved: ArrayBuffer[] = []) => port.postMessage(message, moved);
  const tools: JobTools = {
    signal: controller.signal,
    log: forwardingLogger((line) => say({ kind: 'log', line })),
    progress: (done, total, note) => say({ kind: 'progress', done, total, note }),
    metric: (metric) => say({ kind: 'metric', metric }),
  };
  let running = 0;
  let closing = false;
  // Never while native code runs: it would take the whole process with it.
  const endWhenIdle = () => {
    if (closing && running === 0) process.exit(0);
  };

  const run = async (id: number, name: string, input: unknown): Promise<void> => {
    running += 1;
    try {
      const job = jobs[name];
      if (job === undefined) throw new DandelionError('internal', `The worker has no job "${name}".`);
      controller.signal.throwIfAborted();
      const output = await job(input as never, tools);
      say({ kind: 'answer', id, output }, movableBuffers(output));
    } catch (error) {
      say({ kind: 'failure', id, error: packError(memoryError(error)) });
    } finally {
      running -= 1;
      endWhenIdle();
    }
  };

  port.on('message', (message: ToWorker) => {
    if (message.kind === 'run') void run(message.id, message.job, message.input);
    if (message.kind === 'abort') controller.abort(unpackError(message.reason));
    if (message.kind === 'close') {
      closing = true;
      endWhenIdle();
    }
  });
}

/** Buffers that a value owns as a whole; a part of a shared one (small Buffers) must be copied. */
function movableBuffers(value: unknown, found = new Set<ArrayBuffer>()): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteLength } = value;
    if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength) found.add(buffer);
  } else if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) movableBuffers(member, found);
  }
  return [...found];
}

/** Numbers live outside the JavaScript heap; when they do not fit, allocation throws a RangeError. */
function memoryError(error: unknown): unknown {
  if (!(error instanceof RangeError && /allocation failed/i.test(error.message))) return error;
  return new DandelionError('out-of-memory', 'The computation needs more memory than this process may use.', {
    cause: error,
  });
}

function forwardingLogger(write: (line: string) => void): Logger {
  const { level } = workerData as WorkerData;
  return pino({ level, base: null, timestamp: false }, { write });
}
