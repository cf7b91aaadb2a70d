import { type ChildProcess, spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, readlink, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';
import { startPostgres } from './postgres.ts';
import { findBinaries, restoreSymlinks } from './postgres-binaries.ts';

let dataDir: string;
let children: ChildProcess[];

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'dandelion-database-'));
  children = [];
});

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  await rm(dataDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

async function query(url: string, text: string): Promise<unknown> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => {} });
  try {
    const [row] = await sql.unsafe(text).values();
    return row?.[0];
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Another process that starts the server and then just stays. */
async function startElsewhere(): Promise<{ child: ChildProcess; url: string }> {
  const module = join(import.meta.dirname, 'postgres.ts');
  const code = `
    const { startPostgres } = await import(${JSON.stringify(module)});
    const server = await startPostgres({ dataDir: ${JSON.stringify(dataDir)} });
    console.log(server.url);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  for await (const line of createInterface({ input: child.stdout })) return { child, url: line };
  throw new Error('the other process printed nothing');
}

async function untilGone(processId: number): Promise<void> {
  for (;;) {
    const status = await readFile(`/proc/${processId}/status`, 'utf8').catch(() => '');
    if (status === '' || status.includes('State:\tZ')) return;
    await sleep(20);
  }
}

async function postmaster(): Promise<number> {
  const [first] = (await readFile(join(dataDir, 'cluster', 'postmaster.pid'), 'utf8')).split('\n');
  return Number(first);
}

describe('embedded PostgreSQL', () => {
  test('keeps what was committed from one start to the next', async () => {
    const first = await startPostgres({ dataDir });
    await query(first.url, 'create table kept as select 42 as answer');
    await first.stop();
    const second = await startPostgres({ dataDir });
    expect(await query(second.url, 'select answer from kept')).toBe(42);
    expect(await query(second.url, 'show server_encoding')).toBe('UTF8');
    expect(await query(second.url, 'show fsync')).toBe('on');
    expect(await query(second.url, 'show server_version')).toMatch(/^18\./);
    await second.stop();
    await second.stop();
  });

  test('lets nobody in without the password, which only the owner of the folder can read', async () => {
    const server = await startPostgres({ dataDir });
    const stranger = new URL(server.url);
    stranger.password = 'guessed';
    await expect(query(stranger.href, 'select 1')).rejects.toThrow(/password/);
    expect((await stat(join(dataDir, 'password'))).mode & 0o777).toBe(0o600);
    expect(await query(server.url, 'show listen_addresses')).toBe('127.0.0.1');
    await server.stop();
  });

  test('refuses a folder that another start of it is using', async () => {
    const server = await startPostgres({ dataDir });
    await expect(startPostgres({ dataDir })).rejects.toMatchObject({ code: 'bad-config' });
    await server.stop();
  });

  test.runIf(process.platform === 'linux')('goes down with an owner that is killed', async () => {
    const { child } = await startElsewhere();
    const processId = await postmaster();
    child.kill('SIGKILL');
    await untilGone(processId);
  });

  test.runIf(process.platform === 'linux')(
    'takes over from a server that lost its owner and its guard',
    async () => {
      const { child, url } = await startElsewhere();
      await query(url, 'create table kept as select 7 as answer');
      const processId = await postmaster();
      const parent = /PPid:\t(\d+)/.exec(await readFile(`/proc/${processId}/status`, 'utf8'))?.[1];
      process.kill(Number(parent), 'SIGKILL');
      child.kill('SIGKILL');
      const server = await startPostgres({ dataDir });
      expect(await query(server.url, 'select answer from kept')).toBe(7);
      expect(await postmaster()).not.toBe(processId);
      await server.stop();
    },
  );

  test('starts over a pid file that names a process of another program', async () => {
    await (await startPostgres({ dataDir })).stop();
    await writeFile(join(dataDir, 'cluster', 'postmaster.pid'), `${process.pid}\n${dataDir}\n`);
    const server = await startPostgres({ dataDir });
    expect(await query(server.url, 'select 1')).toBe(1);
    await server.stop();
  });

  test('starts over a cluster that was only half made', async () => {
    await cp(import.meta.dirname, join(dataDir, 'cluster.draft'), { recursive: true });
    const server = await startPostgres({ dataDir });
    await server.stop();
  });

  test('names the versions when the folder belongs to another PostgreSQL', async () => {
    await (await startPostgres({ dataDir })).stop();
    await writeFile(join(dataDir, 'cluster', 'PG_VERSION'), '15\n');
    await expect(startPostgres({ dataDir })).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('PostgreSQL 15'),
    });
  });

  test('restores missing library links, several processes at once', async () => {
    const { postgres: program } = await findBinaries();
    const source = dirname(dirname(dirname(program)));
    const list = await readFile(join(source, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]');
    const copy = join(dataDir, 'package');
    await cp(join(source, 'native'), join(copy, 'native'), { recursive: true, verbatimSymlinks: true });
    const links: { target: string }[] = JSON.parse(list);
    await Promise.all(links.map(({ target }) => unlink(join(copy, target))));
    await Promise.all([restoreSymlinks(copy), restoreSymlinks(copy), restoreSymlinks(copy)]);
    for (const { target } of links) expect(await readlink(join(copy, target))).not.toContain('/');
  });

  test('says what to do where there is no package for the platform', async () => {
    await expect(findBinaries('plan9', 'sparc')).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('DATABASE_URL'),
    });
  });

  test('is there for every test of the run', async () => {
    expect(await query(inject('databaseUrl'), 'select 1')).toBe(1);
    expect(process.env.TEST_DATABASE_URL).toBe(inject('databaseUrl'));
  });
});
