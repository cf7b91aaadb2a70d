import type { ImageSource } from '../events.ts';
import type { DriftReport, ObservedPhoto } from '../vision/drift.ts';
import { SKETCH } from '../vision/sketch.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson } from './step-records.ts';

/** What became of an alarm. */
export interface DriftDecision {
  /** `wait`: may be decided anew at a later check. */
  action: 'retrain' | 'wait' | 'none';
  reason: string;
}

/** One window of answers that was held against the reference of the model that gave them. */
export interface DriftCheck {
  model: string;
  version: string;
  /** From 1, for each version. */
  ordinal: number;
  windowFrom: Date;
  windowUntil: Date;
  report: DriftReport;
  /** Null where nothing has drifted. */
  decision: DriftDecision | null;
  checkedAt: Date;
}

/** Answers since the last check of a version. */
export interface DriftWindow {
  photos: ObservedPhoto[];
  from: Date;
  until: Date;
}

/**
 * Reads what a version answered since its last check, by the time it was stored; the last ones, if there are more than
 * `most`. The same photo counts once, however often it was sent: a client in a loop is no drift.
 *
 * @throws DandelionError `database-unavailable`
 */
export async function readDriftWindow(
  db: Database,
  { model, version }: { model: string; version: string },
  most: number,
): Promise<DriftWindow> {
  const rows = await query(
    db,
    () => db<AnsweredRow[]>`
      with last as (
        select coalesce(max(window_until), '-infinity') as until from drift_checks
        where model = ${model} and version = ${version}),
      recent as (
        select p.* from predictions p, last
        where p.model = ${model} and p.version = ${version} and outcome = 'answered' and scores <> '{}'
          -- A Date has milliseconds only: what was stored within the last one was in the last window.
          and stored_at >= last.until + interval '1 millisecond'
        order by stored_at desc limit ${most})
      -- Made into photos here and not there: the database would take several times as long.
      select input, scores, sketch_bytes as "sketchBytes", stored_at as "storedAt",
        case when sketch_bytes is null then to_json(sketch) end as sketch, sketch_id as "sketchId"
      from recent order by stored_at, id`,
  );
  const now = new Date();
  const distinct = new Map(rows.map((row) => [photoIdentity(row), row]));
  return {
    photos: [...distinct.values()].map(observed),
    from: rows[0]?.storedAt ?? now,
    until: rows.at(-1)?.storedAt ?? now,
  };
}

interface AnsweredRow {
  input: Record<string, number>;
  scores: Record<string, number>;
  sketchId: string | null;
  sketch: number[] | null;
  sketchBytes: Buffer | null;
  storedAt: Date;
}

/**
 * The same for every answer about one photo, which says nothing new the second time. It measures the same each time, while
 * what the engine makes of it may differ in the last digits with the photos beside it.
 */
export function photoIdentity(photo: {
  input: Readonly<Record<string, number>>;
  sketch?: unknown;
  sketchBytes?: unknown;
}): string {
  const { input, sketch, sketchBytes } = photo;
  const { familiarity: _ofTheEngine, ...measured } = input;
  return JSON.stringify(Object.keys(measured).length > 0 ? measured : (sketch ?? sketchBytes ?? null));
}

function observed({ input, scores, sketchId, sketch, sketchBytes }: AnsweredRow): ObservedPhoto {
  // Not the label, which may be "unknown": what the reference has is the likeliest class, too.
  const [label = '', confidence = 0] = Object.entries(scores).reduce<[string, number] | []>(
    (most, one) => (one[1] > (most[1] ?? -1) ? one : most),
    [],
  );
  const numbers = sketchBytes === null ? sketch : numbersOf(sketchBytes);
  return { statistics: input, label, confidence, sketch: sketchId === SKETCH.id ? numbers : null };
}

/** Null for what no features lead to. */
function numbersOf(bytes: Buffer): number[] | null {
  const numbers = Array.from({ length: Math.floor(bytes.length / 4) }, (_, place) =>
    bytes.readFloatLE(place * 4),
  );
  return numbers.length === SKETCH.length && numbers.every(Number.isFinite) ? numbers : null;
}

/** The last check of a version. */
export async function lastDriftCheck(
  db: Database,
  { model, version }: { model: string; version: string },
): Promise<DriftCheck | undefined> {
  const [check] = await query(
    db,
    () => db<DriftCheck[]>`
      select ${columns(db)} from drift_checks where model = ${model} and version = ${version}
      order by ordinal desc limit 1`,
  );
  return check;
}

/** Checks of a model, the latest first. */
export function listDriftChecks(db: Database, model: string, limit: number): Promise<DriftCheck[]> {
  return query(
    db,
    () => db<DriftCheck[]>`
      select ${columns(db)} from drift_checks where model = ${model} order by checked_at desc limit ${limit}`,
  );
}

/**
 * Stores a check, unless another pod has stored one of that ordinal: a window is tested once.
 *
 * @returns whether it was stored
 */
export async function storeDriftCheck(db: Database, check: Omit<DriftCheck, 'checkedAt'>): Promise<boolean> {
  const { model, version, ordinal, windowFrom, windowUntil, report, decision } = check;
  const rows = await query(
    db,
    () => db`
      insert into drift_checks (model, version, ordinal, window_from, window_until, drifted, report, action, reason)
      values (${model}, ${version}, ${ordinal}, ${windowFrom}, ${windowUntil}, ${report.drifted},
        ${asJson(report)}::text::json, ${decision?.action ?? null}, ${decision?.reason ?? null})
      on conflict do nothing`,
  );
  return rows.count > 0;
}

/** Writes what was decided on an alarm later than with its check. */
export async function decideDriftCheck(
  db: Database,
  { model, version, ordinal }: Pick<DriftCheck, 'model' | 'version' | 'ordinal'>,
  { action, reason }: DriftDecision,
): Promise<void> {
  await query(
    db,
    () => db`
      update drift_checks set action = ${action}, reason = ${reason}, decided_at = now()
      where model = ${model} and version = ${version} and ordinal = ${ordinal}`,
  );
}

/** When drift last had a model trained anew, in order of time; `since` bounds how far back is looked. */
export async function retrainingsByDrift(db: Database, model: string, since: Date): Promise<Date[]> {
  const rows = await query(
    db,
    () => db<{ at: Date }[]>`
      select decided_at as at from drift_checks
      where model = ${model} and action = 'retrain' and decided_at >= ${since} order by decided_at`,
  );
  return rows.map(({ at }) => at);
}

/** Photos of a model whose label a person reviewed since then: what a training would learn anew. */
export async function countNewLabels(db: Database, model: string, since: Date): Promise<number> {
  const [row] = await query(
    db,
    () => db<{ photos: number }[]>`
      select count(distinct sha256)::int as photos from feedback
      where model = ${model} and status = 'accepted' and sha256 is not null and reviewed_at > ${since}`,
  );
  return row?.photos ?? 0;
}

/** The source that the last training took its photos from. */
export async function lastSource(db: Database, model: string): Promise<ImageSource | undefined> {
  const [row] = await query(
    db,
    () => db<ImageSource[]>`
      select source_kind as kind, source_uri as uri from ingestions where model = ${model} and finished_at is not null
      order by created_at desc limit 1`,
  );
  return row;
}

function columns(db: Database) {
  return db`model, version, ordinal, window_from as "windowFrom", window_until as "windowUntil", report,
    case when action is not null then json_build_object('action', action, 'reason', reason) end as decision,
    checked_at as "checkedAt"`;
}
