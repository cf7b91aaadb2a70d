import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, stat } from 'node:fs/promises';
import { createServer } from 'node:net';

/** A server of others, and how to end it. */
export interface GuardedCommand {
  /** For the process list. */
  name: string;
  command: readonly string[];
  /** What the server takes for "stop in order". */
  stopSignal: 'INT' | 'TERM';
  /** Both its outputs go there; beyond 5 MB the file starts anew. */
  logPath: string;
  env: Readonly<Record<string, string | undefined>>;
  uid?: number | undefined;
  gid?: number | undefined;
}

const largestLogBytes = 5_000_000;

/**
 * The shell in between outlives a killed owner: the pipe on its standard input closes, it stops the server and
 * waits for it. In a session of its own, so that Ctrl-C in the terminal reaches the owner alone.
 */
const guardian = `exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ while read -r line <&3; do :; done; kill -$STOP_SIGNAL $server; } >/dev/null 2>&1 &
reader=$!
exec 3<&-
wait $server
status=$?
kill $reader 2>/dev/null
exit $status`;

/** Starts a server that ends with this process, even one that is killed. Closing the child's `stdin` stops it. */
export async function spawnGuarded(guarded: GuardedCommand): Promise<ChildProcess> {
  const { name, command, stopSignal, uid, gid } = guarded;
  const [program = '', ...parameters] =
    process.platform === 'win32' ? command : ['/bin/sh', '-c', guardian, name, ...command];
  const log = await openLog(guarded.logPath);
  try {
    const env = { ...guarded.env, STOP_SIGNAL: stopSignal };
    const stdio: ['pipe', number, number] = ['pipe', log.fd, log.fd];
    const child = spawn(program, parameters, { stdio, detached: true, cwd: '/', env, uid, gid });
    child.stdin?.on('error', () => {});
    await once(child, 'spawn');
    return child;
  } finally {
    await log.close();
  }
}

async function openLog(path: string) {
  const size = await stat(path).then(
    (found) => found.size,
    () => 0,
  );
  return open(path, size > largestLogBytes ? 'w' : 'a', 0o600);
}

/** A TCP port on 127.0.0.1 that nobody listens on now: the preferred one if it is free. */
export async function freePort(preferred = 0): Promise<number> {
  const server = createServer().listen(preferred, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch (error) {
    if (preferred === 0) throw error;
    return freePort();
  }
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no TCP port to be had');
  return address.port;
}
