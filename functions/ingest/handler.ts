import { readConfig } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import { parseEventData, runIdOf } from '../../shared/events.ts';
import type {
  FunctionContext,
  FunctionEvent,
  FunctionModule,
  InitContext,
} from '../../shared/function/types.ts';
import { closeDatabases, openDatabase } from '../../shared/stores/database.ts';
import { beginIngestion, finishIngestion, type Ingestion } from '../../shared/stores/images.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { noteAddedPhotos, requestOnceQuiet } from './added-photos.ts';
import { type Collected, type CollectOptions, collectPhotos } from './collect.ts';
import { ingestSettings } from './config.ts';
import type { IngestStores } from './photo-store.ts';
import { joinReviewedPhotos } from './reviewed-photos.ts';
import { groupPhotos, requireEnough, settleLabels, summarise } from './settle.ts';
import { openSource } from './source.ts';
import { grantUploads } from './uploads.ts';

/** A pipeline step: each event is worked once, and a later attempt goes on where the last one stopped. */
export const durable = true;

let stores: IngestStores | undefined;

/** Reads the settings and opens database and object store. */
export async function init({ env }: InitContext): Promise<void> {
  const settings = readConfig(ingestSettings, env);
  stores = { settings, db: await openDatabase(settings.DATABASE_URL), objects: openObjects(settings) };
}

/** Closes the database. */
export async function shutdown(): Promise<void> {
  stores = undefined;
  await closeDatabases();
}

/** What is no event: notifications of the bucket, and requests to upload into it. */
export const routes: FunctionModule['routes'] = {
  '/hooks/s3': (event, context) => noteAddedPhotos(event, context, openStores()),
  '/uploads': (event) => grantUploads(event, openStores()),
};

/**
 * Turns a source of labelled photos into stored, checked and grouped ones: `retrain.requested` in,
 * `images.ingested` out. Of photos that are being added to the bucket it awaits the last, and asks for a training.
 *
 * @throws DandelionError `bad-event`, `bad-data`, what {@link openSource} throws about the source as a whole, and
 *   `no-images`, `too-few-classes`, `too-few-images`
 */
export async function handler(event: FunctionEvent, context: FunctionContext): Promise<unknown> {
  if (event.cloudEvent?.type === 'dev.dandelion.photos.added.v1') {
    return requestOnceQuiet(event, context, openStores());
  }
  const request = parseEventData(event.cloudEvent, 'dev.dandelion.retrain.requested.v1');
  const { db, settings, objects } = openStores();
  const ingestion: Ingestion = {
    id: ingestionIdOf(event, context),
    model: request.model,
    source: request.source,
  };
  await beginIngestion(db, ingestion);

  const brought = await collect({ db, settings, objects, ingestion }, context);
  const collected = await joinReviewedPhotos(db, ingestion, brought);
  const settled = await settleLabels(db, ingestion, collected);
  const nearDuplicates = await groupPhotos(
    db,
    request.model,
    settled,
    settings.INGEST_NEAR_DUPLICATE_DISTANCE,
  );

  const result = summarise({ ingestion, seed: request.seed, nearDuplicates }, collected, settled);
  const { images, rejectedCount, reused, duplicates } = result;
  const counts = { images, rejected: rejectedCount, reused, exact: duplicates.exact, near: duplicates.near };
  await finishIngestion(db, ingestion.id, counts);
  context.log.info({ ingestion: ingestion.id, ...counts }, `ingested ${images} photos`);
  requireEnough(result, settings.INGEST_MIN_PHOTOS_PER_CLASS);
  const { force, canary } = request;
  return context.result('dev.dandelion.images.ingested.v1', { ...result, force, canary }, request.model);
}

function openStores(): IngestStores {
  if (stores !== undefined) return stores;
  throw new DandelionError('not-ready', 'The ingest step has not been initialised.');
}

/** The same event names the same ingestion, in every attempt. */
function ingestionIdOf({ cloudEvent }: FunctionEvent, { functionName }: FunctionContext): string {
  return runIdOf(functionName, cloudEvent?.source ?? '', cloudEvent?.id ?? '');
}

/** Opens the source and takes in all of it; the first failure stops the downloads still under way. */
async function collect(
  run: Pick<CollectOptions, 'db' | 'settings' | 'objects' | 'ingestion'>,
  context: FunctionContext,
): Promise<Collected> {
  const failed = new AbortController();
  const signal = AbortSignal.any([context.signal, failed.signal]);
  context.progress(0, 0, `opening the ${run.ingestion.source.kind}`);
  const { settings, objects } = run;
  const source = await openSource(run.ingestion.source, { settings, objects, signal });
  try {
    return await collectPhotos(source, {
      ...run,
      signal,
      onFailure: (error) => failed.abort(error),
      onEntry: (done, rejected) => {
        context.signal.throwIfAborted();
        const note = rejected === 0 ? 'photos' : `photos, ${rejected} rejected`;
        context.progress(done, source.total ?? done, note);
      },
    });
  } finally {
    await source.close();
  }
}
