import { DandelionError } from '../../shared/errors.ts';
import type { EventData } from '../../shared/events.ts';
import { type JobTools, serveJobs } from '../../shared/function/compute-worker.ts';
import { type Extractor, openExtractor } from '../../shared/stores/extractor.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import type { PreprocessSettings } from './config.ts';
import { type EmbeddedPhoto, embedPhotos } from './embed.ts';

export type ExtractorSummary = EventData<'dev.dandelion.features.stored.v1'>['extractor'];

let opened: { objects: ObjectStore; extractor: Extractor } | undefined;

const jobs = {
  /** Loads what makes features, once, for all calls of `embed`. */
  async open(settings: PreprocessSettings, tools: JobTools): Promise<ExtractorSummary> {
    const objects = openObjects(settings);
    const extractor = await openExtractor(objects, settings, {
      log: tools.log,
      signal: tools.signal,
      onProgress: (done, total) => tools.progress(done, total, 'fetching the backbone'),
    });
    opened = { objects, extractor };
    return { id: extractor.id, dimension: extractor.dimension, inputSize: extractor.engine.inputSize };
  },

  /** Features, statistics and quality flags of photos of the object store. */
  async embed(sha256: string[], { signal }: JobTools): Promise<EmbeddedPhoto[]> {
    if (opened === undefined)
      throw new DandelionError('internal', 'Open an extractor before photos are embedded.');
    signal.throwIfAborted();
    return embedPhotos(opened.objects, opened.extractor.engine, sha256);
  },
};
export type PreprocessJobs = typeof jobs;

serveJobs(jobs);
