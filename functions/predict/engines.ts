import { setImmediate } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { ServedModel, ServingGraph } from '../../shared/stores/served-model.ts';
import type { PhotoAnswer } from '../../shared/vision/engine.ts';

/** A model in a thread of its own, which runs its photos one after the other. */
export interface EngineThread {
  /** @throws DandelionError `compute-died` when the thread ended before the answer */
  answer(pixels: Uint8Array): Promise<PhotoAnswer>;
  close(): Promise<void>;
}

/** All that answers photos with one model. */
export interface Engines {
  /** @param isAlone whether this photo is the only one the process works on */
  answer(pixels: Uint8Array, isAlone: () => boolean): Promise<PhotoAnswer>;
  close(): Promise<void>;
}

export interface EnginesOptions {
  /** Threads to open under load; with one, the main thread does all. */
  threads: number;
  startThread(graph: ServingGraph): Promise<EngineThread>;
  log: Logger;
}

interface Place {
  thread: EngineThread;
  /** Photos it has not answered. */
  waiting: number;
}

/** Threads that could not be opened are not tried again before this. */
const RETRY_AFTER_MS = 10_000;

/**
 * A lone photo is run on all cores at once, here and now: nobody else is kept waiting, and it is answered soonest.
 * Photos that come together are shared out to threads of one core each, opened when first needed. Measured with
 * EfficientNet-Lite0 in floats on two cores: one photo takes 5.2 ms on two and 8.7 ms on one, so side by side is 19 %
 * more photos a second. Batches would win nothing: eight at once take 9.4 ms of one core each.
 */
export function createEngines(model: ServedModel, { threads, startThread, log }: EnginesOptions): Engines {
  let places: Place[] = [];
  let opening: Promise<void> | undefined;
  let retryAt = 0;
  let closing = false;

  const open = async (graph: ServingGraph): Promise<void> => {
    try {
      const started = await Promise.all(Array.from({ length: threads }, () => startThread(graph)));
      places = started.map((thread) => ({ thread, waiting: 0 }));
    } catch (error) {
      retryAt = performance.now() + RETRY_AFTER_MS;
      log.error({ err: error }, 'engine threads did not open; the main thread goes on answering alone');
    }
  };
  const openSoon = (): void => {
    if (closing || threads === 1 || places.length > 0 || performance.now() < retryAt) return;
    if (model.graph === undefined) return;
    opening ??= open(model.graph).finally(() => {
      opening = undefined;
    });
  };
  const dismiss = (place: Place, reason: unknown): void => {
    places = places.filter((other) => other !== place);
    log.error({ err: reason }, 'an engine thread failed; its photos are answered by the main thread');
    void place.thread.close();
  };

  return {
    async answer(pixels, isAlone) {
      // Requests that have arrived and are not read yet count too.
      if (isAlone()) await setImmediate();
      const alone = isAlone();
      if (!alone) openSoon();
      const place = alone ? undefined : leastBusy(places);
      if (place === undefined) return model.answer(pixels);
      place.waiting += 1;
      try {
        return await place.thread.answer(pixels);
      } catch (error) {
        dismiss(place, error);
        return model.answer(pixels);
      } finally {
        place.waiting -= 1;
      }
    },

    async close() {
      closing = true;
      await opening;
      await Promise.all([...places.map(({ thread }) => thread.close()), model.close()]);
    },
  };
}

function leastBusy(places: readonly Place[]): Place | undefined {
  return places.reduce<Place | undefined>(
    (best, place) => (best === undefined || place.waiting < best.waiting ? place : best),
    undefined,
  );
}
