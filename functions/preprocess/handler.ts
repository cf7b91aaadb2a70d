import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import { parseEventData } from '../../shared/events.ts';
import { type Compute, startCompute, workerBeside } from '../../shared/function/compute.ts';
import { forEachConcurrently } from '../../shared/function/parallel.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { type Database, openDatabase } from '../../shared/stores/database.ts';
import {
  assignSplits,
  type DatasetCandidate,
  type DatasetImage,
  listCandidates,
  storeDataset,
} from '../../shared/stores/datasets.ts';
import {
  BATCHES_STORED_AT_ONCE,
  forgetDamagedFeatures,
  missingFeatures,
  recordQuality,
  storeFeatures,
} from '../../shared/stores/features.ts';
import { recordRejections } from '../../shared/stores/images.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { type PreprocessSettings, preprocessSettings } from './config.ts';
import type { ExtractorSummary, PreprocessJobs } from './worker.ts';

export const durable = true;

const LEAST_PHOTOS_OF_A_CLASS = 10;

/** Batches asked of the worker at once: one is decoded while the engine works on the other. */
const BATCHES_AHEAD = 2;

let settings: PreprocessSettings;
let db: Database;

export async function init({ env }: InitContext): Promise<void> {
  settings = readConfig(preprocessSettings, env);
  // The worker opens it when there are photos; what is wrong with the settings is told now.
  openObjects(settings);
  db = await openDatabase(settings.DATABASE_URL);
}

/** Ingested photos become features in PostgreSQL, and an immutable dataset version with its splits. */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  const ingested = parseEventData(event.cloudEvent, 'dev.dandelion.images.ingested.v1');
  const { model, ingestion, seed, force, canary } = ingested;

  const extractor = await embedMissing(model, ingestion, context);
  const { usable, rejected } = await setBlankAside(ingestion);
  const { images, quarantined } = assignSplits(model, usable);
  if (quarantined.length > 0) await reportQuarantined(ingestion, quarantined);
  requireTrainable(images);

  const dataset = await storeDataset(db, { model, ingestion, seed, images });
  context.log.info({ dataset }, 'dataset version stored');
  const result = context.result(
    'dev.dandelion.features.stored.v1',
    {
      model,
      ingestion,
      seed,
      dataset,
      extractor,
      rejectedCount: ingested.rejectedCount + rejected + quarantined.length,
      force,
      canary,
    },
    dataset.version,
  );
  // Triggers read attributes, not data.
  return { ...result, executionclass: dataset.images < settings.LONG_TRAINING_PHOTOS ? 'short' : 'long' };
}

/** Features are kept by photo and extractor: only photos that were never seen cost anything. */
async function embedMissing(
  model: string,
  ingestion: string,
  context: FunctionContext,
): Promise<ExtractorSummary> {
  const compute = startCompute<PreprocessJobs>(workerBeside(import.meta.url), context);
  try {
    const extractor = await compute.run('open', settings);
    const candidates = await listCandidates(db, ingestion);
    const digests = candidates.map(({ sha256 }) => sha256);
    const damaged = await forgetDamagedFeatures(db, model, extractor, digests);
    if (damaged.length > 0) {
      context.log.warn({ photos: damaged }, 'stored features are damaged; these photos are embedded again');
    }
    const missing = await missingFeatures(db, model, extractor.id, digests);
    let done = digests.length - missing.length;
    context.progress(done, digests.length, 'embedding photos');
    const embedded = embedInBatches(compute, missing, context.signal);
    await forEachConcurrently(embedded, BATCHES_STORED_AT_ONCE, async (photos) => {
      await storeFeatures(db, model, extractor.id, photos);
      await recordQuality(db, model, photos);
      done += photos.length;
      context.progress(done, digests.length, 'embedding photos');
    });
    return extractor;
  } finally {
    await compute.close();
  }
}

/** Photos are stored while the worker is at the next ones. */
async function* embedInBatches(
  compute: Compute<PreprocessJobs>,
  sha256: readonly string[],
  signal: AbortSignal,
) {
  const size = settings.PREPROCESS_BATCH;
  const underWay: ReturnType<typeof embed>[] = [];
  const embed = (start: number) => {
    const embedding = compute.run('embed', sha256.slice(start, start + size));
    // Awaited in its turn; until then a failure must not count as unhandled.
    embedding.catch(() => {});
    return embedding;
  };
  for (let start = 0; start < sha256.length; start += size) {
    signal.throwIfAborted();
    underWay.push(embed(start));
    if (underWay.length < BATCHES_AHEAD) continue;
    yield (await underWay.shift()) ?? [];
  }
  for (const embedding of underWay) yield await embedding;
}

/** A photo of one colour teaches nothing; dark, bright, blurred and small ones are kept with their flag. */
async function setBlankAside(ingestion: string) {
  const candidates = await listCandidates(db, ingestion);
  const blank = candidates.filter(({ qualityFlags }) => qualityFlags.includes('blank'));
  await recordRejections(
    db,
    ingestion,
    blank.map(({ source }) => ({
      source,
      code: 'blank-image' as const,
      reason: 'The photo shows one flat colour.',
    })),
  );
  return {
    usable: candidates.filter(({ qualityFlags }) => !qualityFlags.includes('blank')),
    rejected: blank.length,
  };
}

async function reportQuarantined(ingestion: string, quarantined: readonly DatasetCandidate[]) {
  const reason =
    'It resembles photos of different splits; in either it would leak from training into the test.';
  await recordRejections(
    db,
    ingestion,
    quarantined.map(({ source }) => ({ source, code: 'quarantined-image' as const, reason })),
  );
}

/** @throws DandelionError `too-few-classes` or `too-few-images` */
function requireTrainable(images: readonly DatasetImage[]): void {
  const counts = new Map<string, number>();
  for (const { label } of images) counts.set(label, (counts.get(label) ?? 0) + 1);
  if (counts.size < 2) {
    throw new DandelionError(
      'too-few-classes',
      `Only ${[...counts.keys()].join() || 'no class'} is left; add another class.`,
    );
  }
  const small = [...counts].filter(([, photos]) => photos < LEAST_PHOTOS_OF_A_CLASS);
  if (small.length > 0) {
    const names = small.map(([label, photos]) => `${label} (${photos})`).join(', ');
    throw new DandelionError(
      'too-few-images',
      `Add photos: each class needs ${LEAST_PHOTOS_OF_A_CLASS}, after unusable ones were set aside there are ${names}.`,
    );
  }
}
