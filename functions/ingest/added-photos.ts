import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../../shared/errors.ts';
import { createEvent, type EventData, parseEventData } from '../../shared/events.ts';
import type { FunctionContext, FunctionEvent, RouteContext } from '../../shared/function/types.ts';
import { addToBurst, endBurst } from '../../shared/stores/photo-bursts.ts';
import { addressOf } from './bucket.ts';
import { isIgnored } from './layout.ts';
import type { IngestStores } from './photo-store.ts';

/** Photos are dropped into `incoming/{class}/` of the bucket. */
export const INCOMING = 'incoming/';

/** Looks at a burst that goes on, at least this often: hooks that other pods take move its end. */
const LONGEST_PAUSE_MS = 5000;
const SEED = 1;

/** What S3 servers post. Source: Amazon S3 User Guide, event message structure; MinIO posts the same. */
const notification = z.object({
  Records: z.array(
    z.object({
      eventName: z.string(),
      s3: z.object({ bucket: z.object({ name: z.string() }), object: z.object({ key: z.string() }) }),
    }),
  ),
});
/** AWS asks once whether anybody is there. */
const testMessage = z.object({ Event: z.literal('s3:TestEvent') });

/**
 * Takes a notification of the bucket. New photos under `incoming/{class}/` open a burst or prolong the one that goes
 * on, in the database, so that any number of pods see the same; one durable run awaits its end.
 *
 * @throws DandelionError `bad-data` for what is no notification, `bad-config` where nobody would hear of the burst
 */
export async function noteAddedPhotos(
  event: FunctionEvent,
  context: RouteContext,
  { db, objects, settings }: IngestStores,
): Promise<{ photos: number; run?: string }> {
  if (testMessage.safeParse(event.body).success) return { photos: 0 };
  const parsed = notification.safeParse(event.body);
  if (!parsed.success) {
    throw new DandelionError('bad-data', 'Send a notification of an S3 bucket: JSON with Records.');
  }
  const photos = parsed.data.Records.filter((record) => isNewPhoto(record, objects.bucket)).length;
  if (photos === 0) return { photos };
  if (settings.K_SINK === undefined) {
    throw new DandelionError('bad-config', 'Set K_SINK to the broker that is to hear of the new photos.');
  }
  const model = settings.MODEL_NAME;
  const source = { kind: 'folder', uri: addressOf(objects, INCOMING) } as const;
  const burst = await addToBurst(db, { model, sourceUri: source.uri, photos });
  const { id } = await context.start(
    createEvent({
      type: 'dev.dandelion.photos.added.v1',
      source: `/dandelion/buckets/${objects.bucket}`,
      id: `burst-${burst}`,
      subject: model,
      data: { model, source, burst },
    }),
  );
  return { photos, run: id };
}

type BucketRecord = z.infer<typeof notification>['Records'][number];

function isNewPhoto({ eventName, s3 }: BucketRecord, bucket: string): boolean {
  if (s3.bucket.name !== bucket || !/^(s3:)?ObjectCreated:/.test(eventName)) return false;
  const key = keyIn(s3.object.key);
  if (!key.startsWith(INCOMING)) return false;
  const parts = key.slice(INCOMING.length).split('/');
  return parts.length > 1 && parts.at(-1) !== '' && !isIgnored(parts);
}

/** Keys come as in an HTML form: a space as `+`, everything else percent-encoded. */
function keyIn(encoded: string): string {
  try {
    return decodeURIComponent(encoded.replaceAll('+', ' '));
  } catch {
    return encoded;
  }
}

/**
 * Waits until the burst is over, then asks once for a training on everything under `incoming/`. A process that dies
 * here is followed by another one; the request's id depends on the burst alone, so it is one request for all of them.
 */
export async function requestOnceQuiet(
  event: FunctionEvent,
  context: FunctionContext,
  { db, settings }: IngestStores,
): Promise<undefined> {
  const { model, source, burst } = parseEventData(event.cloudEvent, 'dev.dandelion.photos.added.v1');
  const limits = { quietMs: settings.INGEST_QUIET_MS, longestMs: settings.INGEST_LONGEST_BURST_MS };
  for (;;) {
    const leftMs = await endBurst(db, { model, sourceUri: source.uri, burst, ...limits });
    if (leftMs === 0) break;
    context.progress(0, 0, 'waiting for more photos');
    await sleep(Math.min(leftMs, LONGEST_PAUSE_MS), undefined, { signal: context.signal });
  }
  const data: EventData<'dev.dandelion.retrain.requested.v1'> = {
    ...{ model, source, seed: SEED },
    reason: 'photos were added to the bucket',
  };
  context.emit({ type: 'dev.dandelion.retrain.requested.v1', subject: model, data });
}
