import type { Event } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { restored } from './step-records.ts';

/** What must have reached its next step. */
export interface SucceededRun {
  id: string;
  event: Event;
  result: Event;
}

const PAGE = 500;

/**
 * Succeeded runs that have a result, oldest change first, page by page: there may be those of 30 days.
 *
 * @param graceMs leaves out what finished within that time
 */
export async function* pagesOfSucceeded(
  db: Database,
  { graceMs, page = PAGE }: { graceMs: number; page?: number },
): AsyncIterable<SucceededRun[]> {
  const age = db`${graceMs}::float8 * interval '1 millisecond'`;
  let last = { id: '', at: '-infinity' };
  for (;;) {
    const { id, at } = last;
    // As text, since a Date would cut its microseconds off and bring the page's last run again.
    const rows = await query(
      db,
      () => db<(SucceededRun & { at: string })[]>`
        select id, event, result, updated_at::text as at from steps
        where status = 'succeeded' and result is not null and finished_at <= now() - ${age}
          and (updated_at, id) > (${at}::text::timestamptz, ${id})
        order by updated_at, id limit ${page}`,
    );
    yield rows.map((row) => ({ id: row.id, event: restored(row.event), result: restored(row.result) }));
    const end = rows.at(-1);
    if (end === undefined || rows.length < page) return;
    last = end;
  }
}

/** Which of these runs are there. */
export async function knownSteps(db: Database, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await query(
    db,
    () => db<{ id: string }[]>`select id from steps where id = any(${[...ids]}::text[])`,
  );
  return new Set(rows.map(({ id }) => id));
}
