import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import postgres from 'postgres';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';
import { type FolderLock, lockFolder } from './lock.ts';
import { chooseLauncher, findBinaries, majorVersion, runProgram } from './postgres-binaries.ts';
import { type Installation, launch, user } from './postgres-server.ts';

export interface PostgresOptions {
  /** Folder of the server's own; made when missing. */
  dataDir: string;
  logger?: Logger;
  /** TCP port on 127.0.0.1; any free one by default. */
  port?: number;
  /** `false` trades safety for speed: only for tests. */
  durable?: boolean;
}

/** A server that runs for as long as this process. */
export interface RunningPostgres {
  /** Connection URL of the database `dandelion`, as its superuser. */
  url: string;
  /** Fast shutdown: sessions are cut off, everything committed is on disk. */
  stop(): Promise<void>;
}

const stopTimeoutMs = 60_000;

/**
 * Starts an embedded PostgreSQL 18 on 127.0.0.1 with a random password; the first start creates the cluster.
 *
 * The server ends with this process, even one that is killed: a shell waits beside it for the pipe to close.
 *
 * @throws DandelionError `bad-config` when the folder is in use, of another version or cannot be used, and
 *   `database-unavailable` when the server does not come up, with the last lines of its log
 */
export async function startPostgres(options: PostgresOptions): Promise<RunningPostgres> {
  await mkdir(options.dataDir, { recursive: true, mode: 0o700 });
  const dataDir = await realpath(options.dataDir);
  const lock = await lockFolder(dataDir, 'The database folder');
  try {
    const installation = await install(dataDir, options);
    await endLeftServer(installation, options.logger);
    const server = await launch(installation, options.port);
    await createDatabase(server.url);
    options.logger?.info({ event: { action: 'database-started' } }, `PostgreSQL runs on port ${server.port}`);
    return { url: server.url, stop: () => stop(server.process, installation, lock) };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function install(dataDir: string, { logger, durable = true }: PostgresOptions): Promise<Installation> {
  const binaries = await findBinaries();
  const cluster = join(dataDir, 'cluster');
  const launcher = await chooseLauncher(binaries, cluster);
  const version = await readFile(join(cluster, 'PG_VERSION'), 'utf8').catch(() => undefined);
  const installed = { binaries, launcher, dataDir, cluster, durable };
  if (version === undefined) {
    logger?.info({ event: { action: 'database-create' } }, `creating a database in ${dataDir}`);
    return { ...installed, password: await createCluster(installed) };
  }
  const major = await majorVersion(binaries, launcher);
  if (version.trim() !== major) {
    throw new DandelionError(
      'bad-config',
      `The database in ${dataDir} was made by PostgreSQL ${version.trim()}, this is PostgreSQL ${major}: move the folder away to start afresh, or set DATABASE_URL to a server that can read it.`,
    );
  }
  return { ...installed, password: await readPassword(dataDir) };
}

async function readPassword(dataDir: string): Promise<string> {
  try {
    return (await readFile(join(dataDir, 'password'), 'utf8')).trim();
  } catch (error) {
    throw new DandelionError(
      'bad-config',
      `The database in ${dataDir} has lost its file "password": put it back, or move the folder away to start afresh.`,
      { cause: error },
    );
  }
}

/** Made beside its final place and renamed when complete: an interrupted first start leaves nothing half made. */
async function createCluster({
  binaries,
  launcher,
  dataDir,
  cluster,
  durable,
}: Omit<Installation, 'password'>): Promise<string> {
  const draft = join(dataDir, 'cluster.draft');
  const passwordFile = join(dataDir, 'password');
  const password = randomBytes(24).toString('hex');
  await rm(draft, { recursive: true, force: true });
  await rm(cluster, { recursive: true, force: true });
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  if (launcher.uid !== undefined && launcher.gid !== undefined) {
    await chown(dataDir, launcher.uid, launcher.gid);
    await chown(passwordFile, launcher.uid, launcher.gid);
  }
  const settings = [`--pgdata=${draft}`, `--username=${user}`, `--pwfile=${passwordFile}`, '--encoding=UTF8'];
  const access = ['--locale=C', '--auth=scram-sha-256', '--no-instructions'];
  try {
    const parameters = [...settings, ...access, ...(durable ? [] : ['--no-sync'])];
    await runProgram(launcher, binaries.initdb, parameters);
  } catch (error) {
    const why = error instanceof Error ? error.message.trim().split('\n').slice(-3).join(' ') : String(error);
    throw new DandelionError('bad-config', `The database in ${dataDir} cannot be created: ${why}`, {
      cause: error,
    });
  }
  await rename(draft, cluster);
  return password;
}

/**
 * What a killed owner left: a server that is still going down, or a pid file of a machine that went down with it.
 * PostgreSQL would take a recycled process id for a running server, so a file that names no server is removed.
 */
async function endLeftServer({ cluster }: Installation, logger: Logger | undefined): Promise<void> {
  const pidFile = join(cluster, 'postmaster.pid');
  const processId = await readProcessId(pidFile);
  if (processId === undefined) return;
  if (!(await isPostgres(processId, cluster))) {
    await rm(pidFile, { force: true });
    return;
  }
  logger?.warn({ process: { pid: processId } }, 'stopping the PostgreSQL server that an earlier start left');
  process.kill(processId, 'SIGINT');
  await waitUntil(async () => !isAlive(processId), stopTimeoutMs, `PostgreSQL process ${processId} to end`);
}

async function isPostgres(processId: number, cluster: string): Promise<boolean> {
  if (!isAlive(processId)) return false;
  const command = await readFile(`/proc/${processId}/cmdline`, 'utf8').catch(async () => {
    const listing = spawn('ps', ['-o', 'args=', '-p', String(processId)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const chunks: Buffer[] = await listing.stdout.toArray().catch(() => []);
    return Buffer.concat(chunks).toString();
  });
  return command.includes(cluster);
}

async function createDatabase(url: string): Promise<void> {
  const admin = new URL(url);
  admin.pathname = '/postgres';
  const sql = postgres(admin.href, { max: 1, onnotice: () => {}, connect_timeout: 10 });
  try {
    const [found] = await sql`select 1 from pg_database where datname = ${user}`;
    if (found === undefined) await sql`create database ${sql(user)}`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function stop(
  server: ChildProcess,
  { binaries, cluster }: Installation,
  lock: FolderLock,
): Promise<void> {
  if (server.exitCode === null && server.signalCode === null) {
    const exited = once(server, 'exit');
    const last = await readProcessId(join(cluster, 'postmaster.pid'));
    if (process.platform === 'win32') {
      await runProgram({ prefix: [] }, binaries.pg_ctl, ['stop', '-m', 'fast', '-D', cluster]);
    }
    server.stdin?.end();
    const stuck = setTimeout(() => last !== undefined && process.kill(last, 'SIGQUIT'), stopTimeoutMs);
    await exited;
    clearTimeout(stuck);
  }
  await lock.release();
}

async function readProcessId(pidFile: string): Promise<number | undefined> {
  const [first] = (await readFile(pidFile, 'utf8').catch(() => '')).split('\n');
  const processId = Number(first);
  return Number.isInteger(processId) && processId > 1 ? processId : undefined;
}

function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch (error) {
    return hasErrorCode(error, 'EPERM');
  }
}

async function waitUntil(done: () => Promise<boolean>, timeoutMs: number, what: string): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await done())) {
    if (Date.now() > deadline) {
      throw new DandelionError('database-unavailable', `Waited ${timeoutMs / 1000} s for ${what}.`);
    }
    await sleep(50);
  }
}
