import type { Database } from './database.ts';
import { query } from './outage.ts';

/** A burst of photos into one source, for one model. */
export interface PhotoBurst {
  model: string;
  sourceUri: string;
  /** Its name. */
  burst: string;
}

/** Adds photos to the burst of a source that goes on, or opens one; returns its name. */
export async function addToBurst(
  db: Database,
  added: { model: string; sourceUri: string; photos: number },
): Promise<string> {
  const { model, sourceUri, photos } = added;
  const [row] = await query(
    db,
    () => db<{ burst: string }[]>`
      insert into photo_bursts (model, source_uri, photos) values (${model}, ${sourceUri}, ${photos})
      on conflict (model, source_uri)
        do update set photos = photo_bursts.photos + excluded.photos, last_at = now()
      returning burst`,
  );
  return String(row?.burst);
}

/**
 * Ends a burst into which nothing came for `quietMs`, or that is `longestMs` old, in one statement: a photo comes before
 * the end and belongs to it, or after and opens the next. By the database's clock, as those of pods differ.
 *
 * @returns 0 when it is over, by this call or an earlier one; else the milliseconds until it may be
 */
export async function endBurst(
  db: Database,
  { model, sourceUri, burst, quietMs, longestMs }: PhotoBurst & { quietMs: number; longestMs: number },
): Promise<number> {
  const end = db`least(last_at + ${quietMs}::float8 * interval '1 millisecond',
    first_at + ${longestMs}::float8 * interval '1 millisecond')`;
  const mine = db`model = ${model} and source_uri = ${sourceUri} and burst = ${burst}::bigint`;
  const ended = await query(
    db,
    () => db`delete from photo_bursts where ${mine} and ${end} <= clock_timestamp()`,
  );
  if (ended.count > 0) return 0;
  const [left] = await query(
    db,
    () => db<{ leftMs: number }[]>`
      select extract(epoch from ${end} - clock_timestamp())::float8 * 1000 as "leftMs"
      from photo_bursts where ${mine}`,
  );
  return left === undefined ? 0 : Math.max(1, Math.ceil(left.leftMs));
}
