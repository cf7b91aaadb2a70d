import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-start-'));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function run(script: string, ...words: string[]) {
  const flags = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, script)];
  const child = spawn(process.execPath, [...flags, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: folder,
  });
  const [stdout, stderr, [code]] = await Promise.all([
    child.stdout.toArray(),
    child.stderr.toArray(),
    once(child, 'close'),
  ]);
  return { code, stdout: stdout.join(''), stderr: stderr.join('') };
}

describe('npm start', () => {
  test('explains itself', async () => {
    const { code, stdout } = await run('start.ts', '--help');
    expect(code).toBe(0);
    expect(stdout).toContain('--manifest FILE|URL');
  });

  test('ends with 2 and a report when an option is wrong', async () => {
    const json = join(folder, 'report.json');
    const { code, stderr } = await run('start.ts', '--images', '/no/such/folder', '--json', json);
    expect(code).toBe(2);
    expect(stderr.trim()).toBe('--images /no/such/folder: there is no such folder.');
    expect(JSON.parse(await readFile(json, 'utf8'))).toMatchObject({
      ok: false,
      error: { code: 'bad-config', detail: '--images /no/such/folder: there is no such folder.' },
    });
  });

  test('takes Ctrl-C while it makes the database for what it is', async () => {
    const script = join(import.meta.dirname, 'start.ts');
    const words = ['--images', import.meta.dirname, '--data', join(folder, 'data'), '--port', '0'];
    // A process group, as in a terminal: initdb gets the signal, too.
    const child = spawn(process.execPath, [script, ...words], {
      ...{ detached: true, env: { ...process.env, DATABASE_URL: '', NODE_NO_WARNINGS: '1' } },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const written = child.stderr.toArray();
    const begun = () => readdir(join(folder, 'data/postgres/cluster.draft')).catch((): string[] => []);
    while (child.exitCode === null && !(await begun()).includes('pg_wal')) await sleep(2);
    process.kill(-(child.pid ?? 0), 'SIGINT');
    await once(child, 'close');
    expect((await written).join('').trim()).toBe(
      'Stopped before the model was ready; the next start goes on from here.',
    );
  });

  test('ends with 2 when the port is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const address = taken.address();
    const port = String(typeof address === 'object' ? address?.port : 0);
    const options = ['--images', import.meta.dirname, '--data', join(folder, 'data'), '--port', port];
    const { code, stderr } = await run('start.ts', ...options);
    taken.close();
    expect(code).toBe(2);
    expect(stderr).toContain(`Port ${port} is taken by another program: stop it or use --port N.`);
  });
});

test('the first hop names the commands there are', async () => {
  const { code, stderr } = await run('bootstrap.mjs', 'launch');
  expect(code).toBe(2);
  expect(stderr).toMatch(/Unknown command "launch"; there are: start, test, /);
});
