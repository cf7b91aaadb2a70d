import type postgres from 'postgres';
import { DandelionError, type Problem } from '../errors.ts';
import { type Event, runIdOf } from '../events.ts';
import type { Database } from './database.ts';
import { query } from './outage.ts';
import { addingEntries, type OutboxEntry } from './outbox.ts';
import {
  asJson,
  eventDigest,
  type StepProgress,
  type StepRow,
  type StepRun,
  storable,
  toRun,
} from './step-records.ts';

export type { StepProgress, StepRun, StepStatus } from './step-records.ts';
export { eventDigest } from './step-records.ts';

// The ledger of durable steps: one row for each event a function was given, in PostgreSQL.
//
// A run is worked by whoever holds its lease. The attempt number is the fencing token: every write names it, so a
// worker that lost its lease writes nothing. All times are the database's, because the clocks of pods differ.

/** Names one attempt of one run; what every write is fenced by. */
export interface Lease {
  id: string;
  attempt: number;
}

/** Who asks for a lease, and for how long. */
export interface LeaseRequest {
  function: string;
  owner: string;
  leaseMs: number;
}

export type StepOutcome =
  | { status: 'succeeded'; result: Event | undefined }
  | { status: 'failed' | 'cancelled'; problem: Problem; final: boolean };

/** An event that ends its process this often in a row is given up by the sweep; a repeated POST still tries again. */
export const CRASH_LIMIT = 5;

/**
 * Gets the run of an event for this owner: makes it, or takes it when nobody works on it and its answer does not
 * stand. `claimed` is false when the run is finished for good or someone else works on it.
 *
 * @throws DandelionError `event-reused` when the key was used with another body, `database-unavailable`
 */
export async function claimStep(
  db: Database,
  request: LeaseRequest & { event: Event },
): Promise<{ claimed: boolean; run: StepRun }> {
  const { event } = request;
  const id = runIdOf(request.function, event.source, event.id);
  const digest = eventDigest(event);
  const inserted = await query(
    db,
    () => db<StepRow[]>`
      insert into steps (id, function, source, event_id, event, event_digest, status, attempt,
        lease_owner, lease_until, started_at)
      values (${id}, ${request.function}, ${event.source}, ${event.id}, ${asJson(storable(event))}::text::json,
        ${digest}, 'running', 1, ${request.owner}, ${leaseEnd(db, request.leaseMs)}, now())
      on conflict do nothing returning ${columns(db)}`,
  );
  if (inserted[0] !== undefined) return { claimed: true, run: toRun(inserted[0]) };
  const again = db`event_digest = ${digest} and (${abandoned(db)} or (finished_at is not null and not final))`;
  const [claimed] = await begin(db, request, db`id = ${id} and ${again}`);
  if (claimed !== undefined) return { claimed: true, run: claimed };
  const [row] = await query(
    db,
    () => db<(StepRow & { event_digest: string })[]>`
      select ${columns(db)}, event_digest from steps where id = ${id}`,
  );
  if (row === undefined) return claimStep(db, request);
  if (row.event_digest === digest) return { claimed: false, run: toRun(row) };
  throw new DandelionError(
    'event-reused',
    `The event ${event.id} of ${event.source} was sent before with another type, subject or data. Give a new event a new id.`,
  );
}

/** Starts a new attempt of a finished or abandoned run, whatever its answer was; `undefined` while it is worked on. */
export async function retryStep(
  db: Database,
  request: LeaseRequest & { id: string },
): Promise<StepRun | undefined> {
  const [run] = await begin(
    db,
    request,
    db`id = ${request.id} and (${abandoned(db)} or finished_at is not null)`,
  );
  return run;
}

/** Takes over one run that nobody works on; `undefined` when there is nothing to take. */
export async function takeOverStep(
  db: Database,
  request: LeaseRequest & { id: string },
): Promise<StepRun | undefined> {
  const [run] = await begin(db, request, db`id = ${request.id} and ${abandoned(db)} and ${worthwhile(db)}`);
  return run;
}

/** Takes over up to `limit` runs that nobody works on, oldest first; `except` are runs this process still works on. */
export async function takeOverSteps(
  db: Database,
  request: LeaseRequest & { limit: number; except: string[] },
): Promise<StepRun[]> {
  const oldest = db`
    select id from steps where function = ${request.function} and ${abandoned(db)} and ${worthwhile(db)}
      and id <> all(${request.except}::text[])
    order by created_at limit ${request.limit} for update skip locked`;
  return begin(db, request, db`id in (${oldest})`);
}

/** Ends abandoned runs whose workers crashed `CRASH_LIMIT` times in a row; returns how many. */
export async function giveUpSteps(db: Database, functionName: string, problem: Problem): Promise<number> {
  const rows = await query(
    db,
    () => db`
      update steps set status = 'failed', problem = ${asJson(problem)}::text::json, final = false,
        crashes = 0, lease_owner = null, lease_until = null, finished_at = now(), updated_at = now()
      where function = ${functionName} and ${abandoned(db)} and not ${worthwhile(db)}`,
  );
  return rows.count;
}

/** Prolongs a lease from now on; false when the lease is lost. */
export function heartbeatStep(db: Database, lease: Lease, leaseMs: number): Promise<boolean> {
  return write(db, lease, db`lease_until = ${leaseEnd(db, leaseMs)}`);
}

/** Writes progress; false when the lease is lost. */
export function writeProgress(db: Database, lease: Lease, progress: StepProgress): Promise<boolean> {
  return write(db, lease, db`progress = ${asJson(progress)}::text::json, updated_at = now()`);
}

/**
 * Writes the outcome, once, and what goes out with it into the outbox in the same statement; false when the lease is
 * lost and nothing was written.
 */
export async function finishStep(
  db: Database,
  lease: Lease,
  outcome: StepOutcome,
  entries: readonly OutboxEntry[] = [],
): Promise<boolean> {
  const result =
    outcome.status === 'succeeded' && outcome.result !== undefined ? asJson(storable(outcome.result)) : null;
  const problem = outcome.status === 'succeeded' ? null : asJson(outcome.problem);
  const final = outcome.status === 'succeeded' || outcome.final;
  const assignments = db`status = ${outcome.status}, result = ${result}::text::json,
    problem = ${problem}::text::json, final = ${final}, crashes = 0, lease_owner = null, lease_until = null,
    finished_at = now(), updated_at = now()`;
  return write(db, lease, assignments, entries);
}

/** Hands a run back unfinished, so that another process takes it at once; false when the lease was lost before. */
export function releaseStep(
  db: Database,
  lease: Lease,
  entries: readonly OutboxEntry[] = [],
): Promise<boolean> {
  const assignments = db`status = 'queued', lease_owner = null, lease_until = null, updated_at = now()`;
  return write(db, lease, assignments, entries);
}

/**
 * Hands back every run of a process that is known to be dead. It counts as a crash of each of them.
 *
 * @returns ids of the runs
 */
export function releaseLeases(db: Database, owner: string): Promise<string[]> {
  return release(db, db`lease_owner = ${owner}`);
}

/** Hands back every run, where it is known that no process of any function is left. @returns ids of the runs */
export function releaseEveryLease(db: Database): Promise<string[]> {
  return release(db, db`true`);
}

async function release(db: Database, condition: Fragment): Promise<string[]> {
  const rows = await query(
    db,
    () => db<{ id: string }[]>`
      update steps set status = 'queued', lease_owner = null, lease_until = null, crashes = crashes + 1,
        updated_at = now()
      where ${condition} and status = 'running' returning id`,
  );
  return rows.map((row) => row.id);
}

/** One run of a function; `undefined` when there is none (any more). */
export async function findStep(db: Database, functionName: string, id: string): Promise<StepRun | undefined> {
  const [row] = await query(
    db,
    () => db<StepRow[]>`select ${columns(db)} from steps where id = ${id} and function = ${functionName}`,
  );
  return row === undefined ? undefined : toRun(row);
}

/** Runs of a function, oldest change first. */
export function listRuns(db: Database, filter: { function: string }): Promise<StepRun[]> {
  return select(db, db`function = ${filter.function}`);
}

/** Runs that have no outcome yet, oldest change first. */
export function listUnfinished(db: Database): Promise<StepRun[]> {
  return select(db, db`finished_at is null`);
}

/**
 * Lets the failed runs of an event be attempted again when it is sent once more, though their answer was final: whoever
 * sends it again has mended the cause.
 *
 * @returns how many runs
 */
export async function reopenSteps(db: Database, event: { source: string; id: string }): Promise<number> {
  const rows = await query(
    db,
    () => db`
      update steps set final = false, updated_at = now()
      where source = ${event.source} and event_id = ${event.id} and status in ('failed', 'cancelled')`,
  );
  return rows.count;
}

/** Deletes runs that finished longer ago than that; returns how many. */
export async function purgeSteps(db: Database, olderThanMs: number): Promise<number> {
  const age = db`${olderThanMs}::float8 * interval '1 millisecond'`;
  const rows = await query(db, () => db`delete from steps where finished_at < now() - ${age}`);
  return rows.count;
}

type Fragment = postgres.PendingQuery<postgres.Row[]>;

const columns = (db: Database): Fragment => db`
  id, function, source, event_id, event, status, attempt, final, ${abandoned(db)} as abandoned, lease_owner,
  progress, result, problem, created_at, started_at, updated_at, finished_at`;

const leaseEnd = (db: Database, leaseMs: number): Fragment =>
  db`now() + ${leaseMs}::float8 * interval '1 millisecond'`;

/** Names `finished_at` for the sake of the index of unfinished runs. */
const abandoned = (db: Database): Fragment =>
  db`(finished_at is null and (status = 'queued' or (status = 'running' and lease_until <= now())))`;

/** A run that is still leased when it is found abandoned ended its worker just now. */
const crashesSoFar = (db: Database): Fragment => db`crashes + (status = 'running')::int`;

const stillMine = (db: Database, { id, attempt }: Lease): Fragment =>
  db`id = ${id} and attempt = ${attempt} and status = 'running'`;

const worthwhile = (db: Database): Fragment => db`(${crashesSoFar(db)} < ${CRASH_LIMIT})`;

async function begin(db: Database, request: LeaseRequest, condition: Fragment): Promise<StepRun[]> {
  const rows = await query(
    db,
    () => db<StepRow[]>`
      update steps set status = 'running', attempt = attempt + 1, crashes = ${crashesSoFar(db)},
        lease_owner = ${request.owner}, lease_until = ${leaseEnd(db, request.leaseMs)}, progress = null,
        result = null, problem = null, final = false, started_at = now(), updated_at = now(), finished_at = null
      where function = ${request.function} and ${condition} returning ${columns(db)}`,
  );
  return rows.map(toRun);
}

/** One statement, so that what goes out is written with the outcome or not at all. */
async function write(
  db: Database,
  lease: Lease,
  assignments: Fragment,
  entries: readonly OutboxEntry[] = [],
): Promise<boolean> {
  const update = () => db`update steps set ${assignments} where ${stillMine(db, lease)}`;
  const rows = await query(db, () =>
    entries.length === 0
      ? update()
      : db`
        with written as (${update()} returning id, function), added as (${addingEntries(db, 'written', entries)})
        select id from written`,
  );
  return entries.length === 0 ? rows.count > 0 : rows.length > 0;
}

async function select(db: Database, condition: Fragment): Promise<StepRun[]> {
  const rows = await query(
    db,
    () => db<StepRow[]>`select ${columns(db)} from steps where ${condition} order by updated_at, id`,
  );
  return rows.map(toRun);
}
