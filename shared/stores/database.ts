import postgres from 'postgres';
import { DandelionError } from '../errors.ts';
import { migrations } from './migrations.ts';

/** A pool of connections; tag templates run queries (postgres.js). */
export type Database = postgres.Sql;

/** Any number would do; every pod must use the same one. */
const MIGRATION_LOCK = 7_301_414;

const pools = new Map<string, Promise<Database>>();

/**
 * Opens the pool of a URL, one per process, with the schema brought up to date.
 *
 * @throws DandelionError `database-unavailable` naming host and port, never the password
 */
export function openDatabase(url: string, options: { maxConnections?: number } = {}): Promise<Database> {
  const known = pools.get(url);
  if (known !== undefined) return known;
  const opening = connect(url, options.maxConnections ?? 8);
  pools.set(url, opening);
  opening.catch(() => pools.delete(url));
  return opening;
}

/** Closes every pool of this process; queries under way finish first. */
export async function closeDatabases(): Promise<void> {
  const open = [...pools.values()];
  pools.clear();
  const settled = await Promise.allSettled(open);
  await Promise.all(
    settled.flatMap((pool) => (pool.status === 'fulfilled' ? [pool.value.end({ timeout: 5 })] : [])),
  );
}

async function connect(url: string, maxConnections: number): Promise<Database> {
  const db = postgres(url, {
    max: maxConnections,
    connect_timeout: 10,
    idle_timeout: 30,
    onnotice: () => {},
    connection: { application_name: process.env.K_SERVICE ?? 'dandelion' },
  });
  try {
    await migrate(db);
    return db;
  } catch (error) {
    await db.end({ timeout: 1 });
    const { host, pathname } = new URL(url);
    const cause = error instanceof Error ? error.message : String(error);
    throw new DandelionError(
      'database-unavailable',
      `PostgreSQL at ${host}${pathname} does not answer (${cause}). Check DATABASE_URL and that the server runs.`,
      { cause: error, retryAfterMs: 2000 },
    );
  }
}

/** Many pods may start at once: the first one to hold the lock migrates, the others find it done. */
async function migrate(db: Database): Promise<void> {
  if (await isCurrent(db)) return;
  await db.begin(async (transaction) => {
    await transaction`select pg_advisory_xact_lock(${MIGRATION_LOCK})`;
    await transaction`
      create table if not exists schema_migrations (
        id int primary key, name text not null, applied_at timestamptz not null default now()
      )`;
    const applied = await transaction<{ id: number }[]>`select id from schema_migrations`;
    const known = new Set(applied.map((row) => row.id));
    for (const migration of migrations.filter(({ id }) => !known.has(id))) {
      await transaction.unsafe(migration.sql);
      await transaction`insert into schema_migrations ${transaction({ id: migration.id, name: migration.name })}`;
    }
  });
}

async function isCurrent(db: Database): Promise<boolean> {
  const [table] = await db<
    { present: boolean }[]
  >`select to_regclass('schema_migrations') is not null as present`;
  if (table?.present !== true) return false;
  const [row] = await db<{ applied: number }[]>`select count(*)::int as applied from schema_migrations`;
  return row !== undefined && row.applied >= migrations.length;
}
