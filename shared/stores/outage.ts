import postgres from 'postgres';
import { DandelionError } from '../errors.ts';
import type { Database } from './database.ts';

/**
 * Runs a query; faults of the connection become `database-unavailable`, which callers retry, faults of a statement
 * pass.
 */
export async function query<Result>(run: () => PromiseLike<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    throw isOutage(error) ? unavailable(error) : error;
  }
}

/**
 * Names what a query without {@link query} met: a fault of the connection to this database becomes
 * `database-unavailable`; everything else, faults of other connections among it, comes back as it is.
 */
export function nameOutage(error: unknown, db: Database): unknown {
  const isOurs =
    error instanceof postgres.PostgresError ||
    (error instanceof Error && 'code' in error && String(error.code).startsWith('CONNECT')) ||
    // The driver hangs the query on what its socket throws.
    (error instanceof Error && 'query' in error && 'parameters' in error) ||
    (error instanceof Error && 'port' in error && db.options.port.includes(Number(error.port)));
  return isOurs && isOutage(error) ? unavailable(error) : error;
}

function unavailable(cause: unknown): DandelionError {
  const sentence = 'PostgreSQL does not answer; try again in a moment.';
  return new DandelionError('database-unavailable', sentence, { cause, retryAfterMs: 2000 });
}

/** Connection trouble, by PostgreSQL's error classes 08, 53 and 57, the driver's names or the system's. */
function isOutage(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return /^(08|53|57)/.test(error.code);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return /^(CONNECT|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_|EHOST|ENET)/.test(code);
}
