import { DandelionError, isFinal } from '../../shared/errors.ts';
import { forEachConcurrently } from '../../shared/function/parallel.ts';
import type { Ingestion } from '../../shared/stores/images.ts';
import type { OpenSource, PhotoEntry, SourceEntry } from './entries.ts';
import { type IngestStores, openPhotoStore } from './photo-store.ts';
import { openRecorder } from './recorder.ts';
import { openRejections, type RejectionList } from './rejections.ts';

/** An entry whose photo is stored. */
export interface Claim {
  source: string;
  label: string;
  sha256: string;
}

/** What came of a source: every entry is a claim or a rejection. */
export interface Collected {
  claims: Claim[];
  rejections: RejectionList;
  /** Every label that a usable entry carried, whether its photos arrived or not. */
  labels: ReadonlySet<string>;
  /** Digests of photos that were in the object store before. */
  reused: ReadonlySet<string>;
}

export interface CollectOptions extends IngestStores {
  ingestion: Ingestion;
  /** Aborted: reading the source has stopped. */
  signal: AbortSignal;
  /** Hears at once of the failure that ends the attempt. */
  onFailure(error: unknown): void;
  /** Called after every entry. */
  onEntry(done: number, rejected: number): void;
}

/**
 * Fetches, checks and stores every photo of a source, many at once. An entry that fails is a rejection; trouble
 * with our own stores ends the attempt, and the next one goes on where this one stopped.
 *
 * @throws DandelionError `store-unavailable` and others of the stores; the reason of an aborted signal
 */
export async function collectPhotos(source: OpenSource, options: CollectOptions): Promise<Collected> {
  const { db, ingestion, settings } = options;
  const recorder = openRecorder(db, ingestion);
  const rejections = openRejections((rejection) => recorder.rejection(rejection));
  const store = await openPhotoStore(options, ingestion);
  const claims: Claim[] = [];
  const labels = new Set<string>();
  const seen = new Set<string>();
  const repeats: PhotoEntry[] = [];
  let done = 0;

  const takePhoto = async (entry: PhotoEntry): Promise<void> => {
    const { source, label } = entry;
    labels.add(label);
    if (seen.has(source)) {
      repeats.push(entry);
      return;
    }
    seen.add(source);
    try {
      const { facts, isNew } = await store.keep(entry);
      claims.push({ source, label, sha256: facts.sha256 });
      if (isNew) await recorder.image({ ...facts, source, label });
    } catch (error) {
      // Once stopped, every download under way fails; that says nothing about its photo.
      if (options.signal.aborted || !(error instanceof DandelionError) || !isFinal(error)) throw error;
      await rejections.add(source, error.code, error.message);
    }
  };
  const take = async (entry: SourceEntry): Promise<void> => {
    if (entry.kind === 'photo') await takePhoto(entry);
    else await rejections.add(entry.source, entry.code, entry.reason);
    options.onEntry(++done, rejections.all().length);
  };
  try {
    await forEachConcurrently(source.entries, settings.INGEST_CONCURRENCY, take, options.onFailure);
    await settleRepeats(repeats, claims, rejections);
  } catch (error) {
    // What arrived is worth keeping, but the first failure is the one to tell.
    await recorder.flush().catch(() => {});
    throw error;
  }
  await recorder.flush();
  return { claims, rejections, labels, reused: store.reused };
}

/** The same address again is the same photo again, or the same failure. */
async function settleRepeats(
  repeats: readonly PhotoEntry[],
  claims: Claim[],
  rejections: RejectionList,
): Promise<void> {
  const arrived = new Map(claims.map((claim) => [claim.source, claim.sha256]));
  const refused = new Map(rejections.all().map((rejection) => [rejection.source, rejection]));
  for (const { source, label } of repeats) {
    const sha256 = arrived.get(source);
    const refusal = refused.get(source);
    if (sha256 !== undefined) claims.push({ source, label, sha256 });
    else if (refusal !== undefined) await rejections.add(source, refusal.code, refusal.reason);
  }
}
