import type postgres from 'postgres';
import type { Event } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson, restored, storable } from './step-records.ts';

/**
 * The outbox of durable steps: notices, and the results of steps that answer their broker early, wait here, written
 * with the outcome that they tell of, until a sink took them. Delivery is at least once: a sender that dies after the
 * sink's answer leaves its claim to expire.
 *
 * Source: transactional outbox (Richardson, Microservices Patterns, 2018, chapter 3).
 */

/** What an outcome puts into the outbox. */
export interface OutboxEntry {
  /** One that waits already is not added twice. */
  id: string;
  event: Event;
  /** How long it rests before the first try. */
  delayMs?: number;
}

/** One notice that this sender may try to deliver. */
export interface ClaimedNotice {
  position: string;
  event: Event;
  /** This one included; names the claim, so that a sender that was slow changes nothing. */
  tries: number;
}

/**
 * The clause that adds entries to the outbox, for the statement that writes the outcome they tell of.
 *
 * @param written name of the `with` clause that returns `id` and `function` of the run, or nothing
 */
export function addingEntries(
  db: postgres.ISql,
  written: string,
  entries: readonly OutboxEntry[],
): postgres.PendingQuery<postgres.Row[]> {
  const ids = entries.map(({ id }) => id);
  const events = entries.map(({ event }) => asJson(storable(event)));
  // As text: the driver knows no arrays of numbers.
  const delays = entries.map(({ delayMs = 0 }) => String(delayMs));
  return db`
    insert into outbox (id, function, run, event, next_try_at)
    select entry.id, run.function, run.id, entry.event::json, now() + entry.delay::float8 * interval '1 millisecond'
    from ${db(written)} as run, unnest(${ids}::text[], ${events}::text[], ${delays}::text[])
      with ordinality as entry (id, event, delay, ordinal)
    order by ordinal
    on conflict (id) do nothing`;
}

/**
 * Claims up to `limit` notices that are due, oldest first, for the length of the lease.
 *
 * @param request.function whose; without it, everyone's
 * @param request.overdueMs only those that nobody has tried for this long
 */
export async function claimNotices(
  db: Database,
  request: { function?: string; limit: number; leaseMs: number; overdueMs?: number },
): Promise<ClaimedNotice[]> {
  const whose = request.function === undefined ? db`true` : db`function = ${request.function}`;
  const rows = await query(
    db,
    () => db<ClaimedNotice[]>`
      with due as (
        select position from outbox
        where ${whose} and refusal is null and next_try_at <= now() - ${milliseconds(db, request.overdueMs ?? 0)}
        order by position limit ${request.limit} for update skip locked)
      update outbox set tries = tries + 1, next_try_at = now() + ${milliseconds(db, request.leaseMs)}
      from due where outbox.position = due.position
      returning outbox.position, outbox.event, outbox.tries`,
  );
  return rows.map((row) => ({ ...row, event: restored(row.event) }));
}

/** Forgets a notice that the sink took. */
export async function removeNotice(db: Database, claim: ClaimedNotice): Promise<void> {
  await query(db, () => db`delete from outbox where ${stillMine(db, claim)}`);
}

/** Lets a notice be tried again after a while. */
export async function postponeNotice(db: Database, claim: ClaimedNotice, delayMs: number): Promise<void> {
  await query(
    db,
    () => db`
      update outbox set next_try_at = now() + ${milliseconds(db, delayMs)} where ${stillMine(db, claim)}`,
  );
}

/** Lets a notice rest that the sink refused for good; it is kept with the reason until it is purged. */
export async function refuseNotice(db: Database, claim: ClaimedNotice, refusal: string): Promise<void> {
  await query(db, () => db`update outbox set refusal = ${refusal} where ${stillMine(db, claim)}`);
}

/** Which of these notices still wait for a sender. */
export async function waitingNotices(db: Database, positions: readonly string[]): Promise<Set<string>> {
  const rows = await query(
    db,
    () => db<{ position: string }[]>`
      select position from outbox where refusal is null and position = any(${positions}::text[]::bigint[])`,
  );
  return new Set(rows.map(({ position }) => position));
}

/** Deletes notices written longer ago than that, whatever became of them; returns how many. */
export async function purgeNotices(db: Database, olderThanMs: number): Promise<number> {
  const rows = await query(
    db,
    () => db`delete from outbox where created_at < now() - ${milliseconds(db, olderThanMs)}`,
  );
  return rows.count;
}

type Fragment = postgres.PendingQuery<postgres.Row[]>;

const milliseconds = (db: Database, ms: number): Fragment => db`${ms}::float8 * interval '1 millisecond'`;

const stillMine = (db: Database, { position, tries }: ClaimedNotice): Fragment =>
  db`position = ${position} and tries = ${tries}`;
