import { digestOf, type Event } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { asJson, restored, storable } from './step-records.ts';

/** An event that nobody took in all tries, or that was refused for good. */
export interface DeadLetter {
  id: string;
  event: Event;
  /** Who did not take it. */
  destination: string;
  /** HTTP status of the last try, where there was an answer. */
  status: number | null;
  cause: string;
  /** How often it ended here. */
  occurrences: number;
  replays: number;
  firstAt: Date;
  lastAt: Date;
  replayedAt: Date | null;
}

/** What a broker tells of an event it gives up. */
export type Burial = Pick<DeadLetter, 'event' | 'destination' | 'status' | 'cause'>;

/**
 * Stores a dead letter. One that was there already, sent again and again refused, waits anew with its latest cause.
 *
 * @throws DandelionError `database-unavailable`
 */
export async function saveDeadLetter(db: Database, burial: Burial): Promise<string> {
  const { event, destination, status } = burial;
  const id = digestOf('dead-letter', destination, event.source, event.id).slice(0, 32);
  // PostgreSQL's text takes no U+0000.
  const cause = burial.cause.replaceAll('\0', '\uFFFD');
  await query(
    db,
    () => db`
      insert into dead_letters (id, event, destination, status, cause)
      values (${id}, ${asJson(storable(event))}::text::json, ${destination}, ${status}, ${cause})
      on conflict (id) do update set event = excluded.event, status = excluded.status, cause = excluded.cause,
        occurrences = dead_letters.occurrences + 1, last_at = now()`,
  );
  return id;
}

/** Dead letters, the latest first; those that were replayed and did not come back only when `all`. */
export async function listDeadLetters(
  db: Database,
  { all, limit }: { all: boolean; limit: number },
): Promise<DeadLetter[]> {
  const waiting = all ? db`true` : db`(replayed_at is null or replayed_at < last_at)`;
  const rows = await query(
    db,
    () => db<DeadLetter[]>`
      select ${columns(db)} from dead_letters where ${waiting} order by last_at desc, id limit ${limit}`,
  );
  return rows.map((row) => ({ ...row, event: restored(row.event) }));
}

/** One dead letter; `undefined` when there is none of that id. */
export async function findDeadLetter(db: Database, id: string): Promise<DeadLetter | undefined> {
  const [row] = await query(
    db,
    () => db<DeadLetter[]>`select ${columns(db)} from dead_letters where id = ${id}`,
  );
  return row === undefined ? undefined : { ...row, event: restored(row.event) };
}

/** Those of some events that ended here, for whichever destination. */
export async function deadAmong(db: Database, events: readonly Event[]): Promise<Set<Event>> {
  if (events.length === 0) return new Set();
  const ids = events.map(({ id }) => asJson(id));
  // Read as text: to look into it, PostgreSQL would take every string apart, and fail at the first U+0000.
  const rows = await query(
    db,
    () => db<{ event: Event }[]>`
      select event from dead_letters
      where exists (select from unnest(${ids}::text[]) as wanted (id) where strpos(event::text, wanted.id) > 0)`,
  );
  const dead = new Set(rows.map(({ event }) => keyOf(event)));
  return new Set(events.filter((event) => dead.has(keyOf(event))));
}

function keyOf({ source, id }: Pick<Event, 'source' | 'id'>): string {
  return asJson([source, id]);
}

/** Notes that a dead letter was sent to the broker again. */
export async function noteReplay(db: Database, id: string): Promise<void> {
  await query(
    db,
    () => db`update dead_letters set replays = replays + 1, replayed_at = now() where id = ${id}`,
  );
}

const columns = (db: Database) => db`
  id, event, destination, status, cause, occurrences, replays, first_at as "firstAt", last_at as "lastAt",
  replayed_at as "replayedAt"`;
