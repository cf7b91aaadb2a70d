import { setTimeout as delay } from 'node:timers/promises';
import postgres from 'postgres';
import { z } from 'zod';
import { count, readConfig } from '../config.ts';
import { impatientSockets } from './database-socket.ts';
import { migrations } from './migrations.ts';
import { asOutage } from './outage.ts';

/**
 * A pool of connections; tag templates run queries (postgres.js).
 *
 * It offers neither `begin` nor `reserve`, and nobody uses `cursor`: in postgres.js 3.4.9 a connection that is lost
 * within one of them ends the process (a write to a socket that is gone). What belongs together is one statement with
 * `with` clauses, which PostgreSQL does whole or not at all; long reads go page by page.
 */
export interface Database extends postgres.ISql {
  readonly options: postgres.ParsedOptions;
  end(options?: { timeout?: number }): Promise<void>;
}

const databaseSettings = z.object({
  /** Connections of one process at most. */
  DATABASE_POOL: count(1).default(8),
  /** How long a statement may take, and how long it may wait for a lock; 0 is without limit. */
  DATABASE_STATEMENT_TIMEOUT_MS: count().default(30_000),
  DATABASE_LOCK_TIMEOUT_MS: count().default(10_000),
  /** The same for the few statements over a whole dataset, and for migrations. */
  DATABASE_LONG_STATEMENT_TIMEOUT_MS: count().default(900_000),
  /** After this the server ends a transaction that somebody left open. */
  DATABASE_IDLE_TRANSACTION_TIMEOUT_MS: count().default(60_000),
});
type DatabaseSettings = z.infer<typeof databaseSettings>;

const CONNECT_S = 10;
const IDLE_S = 30;
const END_S = 5;
/** By then the server should have said that a statement took too long; if not, it hangs. */
const BEYOND_STATEMENT_MS = 5000;
/** The driver tries for ever to connect where a socket closes before its own time limit. */
const SHORTEST_SILENCE_MS = CONNECT_S * 1000 + 5000;

/** Any number would do; every pod must use the same one. */
const MIGRATION_LOCK = 7_301_414;

const pools = new Map<string, Promise<Database>>();
const patientPools = new WeakMap<Database, Database>();

/**
 * Opens the pool of a URL, one per process, with the schema brought up to date. Time limits come from the
 * environment (`DATABASE_...`).
 *
 * @throws DandelionError `database-...` naming host and database, never the password, and the cure
 */
export function openDatabase(url: string, options: { maxConnections?: number } = {}): Promise<Database> {
  const known = pools.get(url);
  if (known !== undefined) return known;
  const opening = connect(url, options.maxConnections);
  pools.set(url, opening);
  opening.catch(() => pools.delete(url));
  return opening;
}

/** Closes every pool of this process; queries under way finish first, if that is a matter of seconds. */
export async function closeDatabases(): Promise<void> {
  const open = [...pools.values()];
  pools.clear();
  const ending = Promise.allSettled(open.map(async (pool) => (await pool).end({ timeout: END_S })));
  // One that is still being opened may wait for a server that hangs.
  const late = new AbortController();
  await Promise.race([ending, delay(END_S * 1000, undefined, { signal: late.signal }).catch(() => {})]);
  late.abort();
}

/** The connections for statements over a whole dataset: the same database, with minutes to answer. */
export function patient(db: Database): Database {
  return patientPools.get(db) ?? db;
}

async function connect(url: string, maxConnections: number | undefined): Promise<Database> {
  const settings = readConfig(databaseSettings);
  const { DATABASE_LONG_STATEMENT_TIMEOUT_MS: long } = settings;
  const quick = openPool(url, maxConnections ?? settings.DATABASE_POOL, settings);
  const slow = openPool(url, 2, {
    ...settings,
    DATABASE_STATEMENT_TIMEOUT_MS: long,
    DATABASE_LOCK_TIMEOUT_MS: long,
  });
  const endQuick = quick.end;
  const end = async (options?: { timeout?: number }) => {
    await Promise.all([endQuick(options), slow.end(options)]);
  };
  const db: Database = Object.assign(quick, { end });
  patientPools.set(db, slow);
  try {
    if (!(await isCurrent(quick))) await migrate(slow);
    return db;
  } catch (error) {
    await db.end({ timeout: 1 });
    throw asOutage(error, db) ?? error;
  }
}

function openPool(url: string, max: number, settings: DatabaseSettings): postgres.Sql {
  const limitMs = settings.DATABASE_STATEMENT_TIMEOUT_MS;
  const silentForMs = Math.max(limitMs + BEYOND_STATEMENT_MS, SHORTEST_SILENCE_MS);
  return postgres(url, {
    max,
    connect_timeout: CONNECT_S,
    ...(limitMs === 0
      ? { idle_timeout: IDLE_S }
      : { idle_timeout: Math.min(IDLE_S, silentForMs / 2000), socket: impatientSockets(silentForMs) }),
    onnotice: () => {},
    // The driver would ask each new connection for the types, and an outage meanwhile would end the process.
    fetch_types: false,
    types: { textArray, byteaArray } as Record<string, postgres.PostgresType>,
    connection: {
      application_name: process.env.K_SERVICE ?? 'dandelion',
      statement_timeout: settings.DATABASE_STATEMENT_TIMEOUT_MS,
      lock_timeout: settings.DATABASE_LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: settings.DATABASE_IDLE_TRANSACTION_TIMEOUT_MS,
    },
  });
}

/** `text[]`, as a parameter only: queries return lists as JSON. */
const textArray: postgres.PostgresType<readonly string[]> = {
  to: 1009,
  from: [],
  serialize: (texts: readonly string[]) =>
    `{${texts.map((text) => `"${text.replace(/[\\"]/g, '\\$&')}"`).join()}}`,
  parse: () => {
    throw new TypeError('Select to_json(list): a text[] has no reader.');
  },
};

/** Type of a list of bytes, which the driver takes for the type of one of them: `db.typed(list, BYTEA_ARRAY)`. */
export const BYTEA_ARRAY = 1001;

const byteaArray: postgres.PostgresType<readonly Buffer[]> = {
  to: BYTEA_ARRAY,
  from: [],
  serialize: (list: readonly Buffer[]) =>
    `{${list.map((bytes) => `"\\\\x${bytes.toString('hex')}"`).join()}}`,
  parse: () => {
    throw new TypeError('Unnest the list: a bytea[] is a parameter only.');
  },
};

/**
 * Many pods may start at once: the first one to hold the lock migrates, the others find it done. All of it is one
 * message of several statements, which the server does in one transaction, even when its sender dies meanwhile.
 *
 * A pod may meet migrations that it does not know, of a newer release: it works on, because a migration only adds.
 */
async function migrate(db: Database): Promise<void> {
  const steps = migrations.map(
    ({ id, name, sql }) => `
      if not exists (select from schema_migrations where id = ${id}) then
        execute $migration$${sql}$migration$;
        insert into schema_migrations (id, name) values (${id}, '${name}');
      end if;`,
  );
  await db.unsafe(`
    select pg_advisory_xact_lock(${MIGRATION_LOCK});
    create table if not exists schema_migrations (
      id int primary key, name text not null, applied_at timestamptz not null default now()
    );
    do $all$ begin ${steps.join('')} end $all$;`);
}

async function isCurrent(db: Database): Promise<boolean> {
  const [table] = await db<
    { present: boolean }[]
  >`select to_regclass('schema_migrations') is not null as present`;
  if (table?.present !== true) return false;
  const applied = await db<{ id: number }[]>`select id from schema_migrations`;
  const known = new Set(applied.map(({ id }) => id));
  return migrations.every(({ id }) => known.has(id));
}
