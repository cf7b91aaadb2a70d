import type { ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DandelionError } from '../errors.ts';
import { freePort, spawnGuarded } from './guarded-process.ts';
import type { Launcher, PostgresBinaries } from './postgres-binaries.ts';

/** A cluster on disk and how to run it. */
export interface Installation {
  binaries: PostgresBinaries;
  launcher: Launcher;
  dataDir: string;
  cluster: string;
  password: string;
  durable: boolean;
}

/** Superuser, and the name of the database. */
export const user = 'dandelion';
const startTimeoutMs = 60_000;

/**
 * Starts the server of a cluster and waits until it takes connections.
 *
 * @throws DandelionError `database-unavailable` with the last lines of its log
 */
export async function launch(
  installation: Installation,
  wantedPort: number | undefined,
): Promise<{ url: string; port: number; process: ChildProcess }> {
  for (let attempt = 1; ; attempt++) {
    const port = wantedPort ?? (await freePort());
    const url = `postgres://${user}:${installation.password}@127.0.0.1:${port}/${user}`;
    const server = await spawnServer(installation, port);
    const fault = await waitUntilReady(server, installation);
    if (fault === undefined) return { url, port, process: server };
    // Another process may have taken the port between looking and listening.
    if (wantedPort === undefined && attempt < 5 && /address already in use/i.test(fault)) continue;
    throw new DandelionError(
      'database-unavailable',
      `The embedded PostgreSQL did not start: ${fault} (log: ${logPathOf(installation)})`,
    );
  }
}

function spawnServer(installation: Installation, port: number): Promise<ChildProcess> {
  const { binaries, launcher } = installation;
  return spawnGuarded({
    name: 'dandelion-postgres',
    command: [...launcher.prefix, binaries.postgres, ...serverParameters(installation, port)],
    stopSignal: 'INT',
    logPath: logPathOf(installation),
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    ...{ uid: launcher.uid, gid: launcher.gid },
  });
}

/** Small, since it shares a laptop with the compute; no parallel workers, so that a container's 64 MB of shared memory do. */
function serverParameters({ cluster, durable }: Installation, port: number): string[] {
  const settings: Record<string, string | number> = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    max_connections: 120,
    shared_buffers: '48MB',
    huge_pages: 'off',
    max_wal_size: '256MB',
    min_wal_size: '32MB',
    wal_level: 'minimal',
    max_wal_senders: 0,
    max_worker_processes: 2,
    max_parallel_workers_per_gather: 0,
    io_method: 'sync',
    jit: 'off',
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...(durable ? {} : { fsync: 'off', full_page_writes: 'off', synchronous_commit: 'off' }),
  };
  return ['-D', cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

/** @returns what went wrong, or nothing when the server takes connections */
async function waitUntilReady(server: ChildProcess, installation: Installation): Promise<string | undefined> {
  const deadline = Date.now() + startTimeoutMs;
  while (Date.now() < deadline) {
    if (server.exitCode !== null || server.signalCode !== null) return lastLogLines(installation);
    const status = await readFile(join(installation.cluster, 'postmaster.pid'), 'utf8').catch(() => '');
    if (status.split('\n')[7]?.trim() === 'ready') return undefined;
    await sleep(25);
  }
  server.stdin?.end();
  return `it was not ready after ${startTimeoutMs / 1000} s`;
}

async function lastLogLines(installation: Installation): Promise<string> {
  const log = await readFile(logPathOf(installation), 'utf8').catch(() => '');
  return log.trim().split('\n').slice(-4).join(' | ');
}

function logPathOf({ dataDir }: Installation): string {
  return join(dataDir, 'postgres.log');
}
