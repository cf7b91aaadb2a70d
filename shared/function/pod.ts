import type { Logger } from 'pino';
import { pause } from './abort.ts';
import type { RuntimeSettings } from './settings.ts';

/** Keeps a pod that works on something. */
export interface PodKeeper {
  /**
   * Until the work settles, the pod has a request in flight.
   *
   * @param path of this function that answers when the work is over, or when the `wait` it is given is
   */
  during(path: string, work: Promise<unknown>): void;
}

/** Most runs end sooner, and no autoscaler decides within it. */
const HOLD_AFTER_MS = 1000;
const HOLD_MS = 60_000;
const RETRY_MS = 5000;

/**
 * Knative scales by requests in flight and cuts a pod off that works on after its answer. So a run holds a request of
 * this process to itself, through the queue-proxy that does the counting: a look at the run that waits. Elsewhere
 * nothing is held.
 *
 * Source: Knative Serving, concurrency is measured by queue-proxy, which listens on port 8012 of the pod.
 */
export function createPodKeeper(settings: RuntimeSettings, log: Logger, stopping: AbortSignal): PodKeeper {
  const { QUEUE_PROXY_URL, K_SERVICE, DANDELION_TOKEN: token } = settings;
  const proxy = QUEUE_PROXY_URL ?? (K_SERVICE === undefined ? undefined : 'http://127.0.0.1:8012');
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };

  const hold = async (path: string, over: AbortSignal): Promise<void> => {
    await pause(HOLD_AFTER_MS, over);
    while (!over.aborted) {
      try {
        const url = `${proxy}${path}?wait=${HOLD_MS}ms`;
        const response = await fetch(url, { headers, signal: over });
        await response.arrayBuffer();
        if (!response.ok) throw new Error(`it answers ${response.status}`);
      } catch (error) {
        if (over.aborted) return;
        log.warn({ err: error }, 'the queue-proxy does not hold this pod; Knative may scale it away');
        await pause(RETRY_MS, over);
      }
    }
  };

  return {
    during(path, work) {
      if (proxy === undefined) return;
      const settled = new AbortController();
      const settle = () => settled.abort();
      work.then(settle, settle);
      void hold(path, AbortSignal.any([settled.signal, stopping]));
    },
  };
}
