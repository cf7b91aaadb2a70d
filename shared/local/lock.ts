import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { hasErrorCode } from '../system-errors.ts';

/** A folder that is this process's alone until released, or until the process ends however it ends. */
export interface FolderLock {
  release(): Promise<void>;
}

const holder = z.object({ pid: z.number(), port: z.number(), token: z.string() });
type Holder = z.infer<typeof holder>;

/**
 * Takes a folder for this process alone.
 *
 * The lock file names a TCP port on which its holder answers with a token: a lock left by a killed process is
 * told from a live one even when its process id was given to another program, as happens in every container.
 *
 * @param what how a message names the folder, as `The data folder`
 * @throws DandelionError `bad-config` when another live process holds it
 */
export async function lockFolder(folder: string, what: string): Promise<FolderLock> {
  const path = join(folder, 'lock');
  const token = randomBytes(12).toString('hex');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(token);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  const draft = `${path}.${token}`;
  try {
    await writeFile(draft, JSON.stringify({ pid: process.pid, port, token } satisfies Holder), {
      mode: 0o600,
    });
    await place(draft, path, folder, what);
  } catch (error) {
    server.close();
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
  return {
    release: async () => {
      if ((await readHolder(path))?.token === token) await rm(path, { force: true });
      if (server.listening) server.close();
    },
  };
}

async function place(draft: string, path: string, folder: string, what: string): Promise<void> {
  for (;;) {
    try {
      // A link appears with its content, so no reader sees a half-written lock.
      return await link(draft, path);
    } catch (error) {
      if (!hasErrorCode(error, 'EEXIST')) throw error;
    }
    const found = await readHolder(path);
    if (found !== undefined && (await answers(found))) {
      throw new DandelionError(
        'bad-config',
        `${what} ${folder} is in use by process ${found.pid}: stop that one first, or choose another folder.`,
      );
    }
    await removeStale(path, `${draft}.stale`, found);
  }
}

/** Two processes may find the same stale lock: the slower one must not remove the lock of the faster. */
async function removeStale(path: string, aside: string, stale: Holder | undefined): Promise<void> {
  await rename(path, aside).catch(() => undefined);
  const moved = await readHolder(aside);
  if (moved !== undefined && moved.token !== stale?.token) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return holder.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}

/** A holder too busy to answer within the time is still a holder: something listens on its port. */
function answers({ port, token }: Holder): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    let received = '';
    socket.setTimeout(5000, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('data', (chunk) => {
      received += chunk.toString();
    });
    socket.on('end', () => resolve(received === token));
    socket.on('error', () => resolve(false));
  });
}
