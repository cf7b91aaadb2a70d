import postgres from 'postgres';
import { DandelionError, type ErrorCode } from '../errors.ts';
import { errorCodeOf } from '../system-errors.ts';
import { certificateFault } from './certificates.ts';
import type { Database } from './database.ts';

/**
 * Runs a query; what keeps PostgreSQL from answering becomes a `database-...` error, which callers retry; faults of a
 * statement pass.
 */
export async function query<Result>(db: Database, run: () => PromiseLike<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    throw asOutage(error, db) ?? error;
  }
}

/**
 * Names what a query without {@link query} met; everything else, faults of other connections among it, comes back as
 * it is.
 */
export function nameOutage(error: unknown, db: Database): unknown {
  const isOurs =
    error instanceof postgres.PostgresError ||
    errorCodeOf(error).startsWith('CONNECT') ||
    // The driver hangs the query on what its socket throws.
    (error instanceof Error && 'query' in error && 'parameters' in error) ||
    (error instanceof Error && 'port' in error && db.options.port.includes(Number(error.port)));
  return isOurs ? (asOutage(error, db) ?? error) : error;
}

/** True for every error that {@link asOutage} makes. */
export function isDatabaseOutage(error: unknown): error is DandelionError {
  return error instanceof DandelionError && error.code.startsWith('database-');
}

/**
 * The error for whatever keeps this database from answering, naming host and database (never the password) and the
 * cure; `undefined` for faults of a statement.
 */
export function asOutage(error: unknown, db: Database): DandelionError | undefined {
  const { host, port, database, user } = db.options;
  const place = `PostgreSQL at ${host.map((name, index) => `${name}:${port[index]}`).join()}/${database}`;
  const state = errorCodeOf(error);
  const because = error instanceof Error ? error.message : String(error);
  const outage = (code: ErrorCode, sentence: string) =>
    new DandelionError(code, `${place} ${sentence}`, { cause: error, retryAfterMs: 2000 });

  if (error instanceof postgres.PostgresError) {
    const named = sentences[state];
    if (named !== undefined) return outage(named[0], named[1]({ user, database, because }));
    if (!/^(08|53|57)/.test(state)) return undefined;
  } else {
    const certificate = certificateFault(state, because);
    if (certificate !== undefined) return outage('database-untrusted', `${certificate}.`);
    if (!/^(CONNECT|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_|EHOST|ENET)/.test(state)) return undefined;
  }
  return outage(
    'database-unavailable',
    `does not answer (${because || state}). Check DATABASE_URL and that the server runs; try again in a moment.`,
  );
}

interface Facts {
  user: string;
  database: string;
  because: string;
}

const wrongUser = ({ user }: Facts) =>
  `refuses the user "${user}": set user and password in DATABASE_URL right, and see pg_hba.conf of the server.`;

/** What to say of an SQLSTATE (PostgreSQL manual, appendix A). */
const sentences: Record<string, [ErrorCode, (facts: Facts) => string]> = {
  '28P01': ['database-refused', wrongUser],
  '28000': ['database-refused', wrongUser],
  '3D000': [
    'database-refused',
    ({ database }) =>
      `has no such database: create it (createdb "${database}") or name another one in DATABASE_URL.`,
  ],
  '42501': [
    'database-refused',
    ({ user, because }) =>
      `lacks a right of the user "${user}" (${because}): make it the owner of database and schema.`,
  ],
  '53300': [
    'database-busy',
    () => 'has no connection left: raise max_connections, or lower DATABASE_POOL or the number of pods.',
  ],
  '53100': [
    'database-full',
    ({ because }) =>
      `has no space left (${because}): make room on its disk. What was not written is tried again.`,
  ],
  '25006': [
    'database-read-only',
    () => 'takes no writes: it is a standby or was set read-only. Name the primary in DATABASE_URL.',
  ],
  '57014': [
    'database-timeout',
    ({ because }) =>
      `did not finish in time (${because}): see what holds it up, or raise DATABASE_STATEMENT_TIMEOUT_MS.`,
  ],
  '55P03': [
    'database-timeout',
    ({ because }) =>
      `is held up by a lock (${because}): see who holds it in pg_locks, or raise DATABASE_LOCK_TIMEOUT_MS.`,
  ],
};
