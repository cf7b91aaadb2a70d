import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import postgres from 'postgres';
import { DandelionError } from '../../errors.ts';
import { findBinaries } from '../../local/postgres-binaries.ts';
import { impatientSockets } from '../../stores/database-socket.ts';
import { migrations } from '../../stores/migrations.ts';
import { asOutage } from '../../stores/outage.ts';
import { type Check, type Finding, timed } from './check.ts';

export const postgresql: Check = {
  name: 'PostgreSQL',
  variable: 'DATABASE_URL',
  look: ({ DATABASE_URL: url }) => (url === undefined ? lookAtEmbedded() : lookAtServer(url)),
};

async function lookAtEmbedded(): Promise<Finding> {
  const { postgres: program } = await findBinaries();
  const { stdout } = await promisify(execFile)(program, ['--version']);
  const version = stdout.trim().split(' ').at(-1) ?? '';
  return {
    status: 'ok',
    version,
    detail: 'embedded: npm start brings it up; DATABASE_URL names one of your own',
  };
}

const SILENT_FOR_MS = 8000;

/** Not by `openDatabase`, which brings the schema up to date: a look changes nothing. */
async function lookAtServer(url: string): Promise<Finding> {
  const limits = { connect_timeout: 5, socket: impatientSockets(SILENT_FOR_MS) };
  const db = postgres(url, { ...limits, max: 1, fetch_types: false, onnotice: () => {} });
  try {
    const [facts] = await db`
      select current_setting('server_version') as version,
        current_setting('transaction_read_only') = 'on' as "readOnly",
        has_database_privilege(current_database(), 'create') as "mayCreate",
        to_regclass('schema_migrations') is not null as "hasSchema"`;
    const sentMs = Date.now();
    const { answer: clock, latencyMs } = await timed(
      () => db`select extract(epoch from clock_timestamp()) * 1000 as now`,
    );
    const clockAheadMs = Math.round(Number(clock[0]?.now) - (sentMs + Date.now()) / 2);
    const done = facts?.hasSchema ? await db`select id from schema_migrations` : [];
    const due = migrations.filter(({ id }) => !done.some((row) => row.id === id)).length;
    const { host, port, database, user } = db.options;
    const place = `${host.join()}:${port.join()}/${database}`;
    if (facts?.readOnly) {
      const cure = 'it is a standby or was set read-only. Name the primary in DATABASE_URL';
      throw new DandelionError('database-read-only', `PostgreSQL at ${place} takes no writes: ${cure}.`);
    }
    if (due > 0 && !facts?.mayCreate) {
      const cure = `make the user "${user}" its owner`;
      throw new DandelionError('database-refused', `PostgreSQL at ${place} lets us make no tables: ${cure}.`);
    }
    const detail = due === 0 ? place : `${place}, ${due} migrations are due: the first function runs them`;
    return {
      status: 'ok',
      version: String(facts?.version).split(' ')[0] ?? '',
      latencyMs,
      clockAheadMs,
      detail,
    };
  } catch (error) {
    throw asOutage(error, db) ?? error;
  } finally {
    await db.end({ timeout: 1 });
  }
}
