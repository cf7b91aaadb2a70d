import type { Logger } from 'pino';
import { startCompute, workerBeside } from '../../shared/function/compute.ts';
import type { EngineThread } from './engines.ts';
import type { OpenRequest, PredictJobs } from './worker.ts';

/** The threads only hold messages in JavaScript; their engines' memory is not in this. */
const HEAP_LIMIT_MB = 64;
const NEW_OBJECTS_MB = 2;

/**
 * Opens an engine in a thread of its own, on one core.
 *
 * @throws DandelionError `model-broken` when the graph cannot be loaded there
 */
export async function startEngineThread(request: OpenRequest, log: Logger): Promise<EngineThread> {
  const { signal } = new AbortController();
  const compute = startCompute<PredictJobs>(
    workerBeside(import.meta.url),
    { signal, log, progress: () => {} },
    { heapLimitMb: HEAP_LIMIT_MB, newObjectsMb: NEW_OBJECTS_MB },
  );
  try {
    await compute.run('open', request);
  } catch (error) {
    await compute.close();
    throw error;
  }
  return {
    // Not moved: should the thread die, the photo is run again elsewhere.
    answer: (pixels) => compute.run('answer', pixels),
    close: () => compute.close(),
  };
}
