import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import postgres from 'postgres';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDatabase } from './database.ts';
import { migrations } from './migrations.ts';
import { query } from './outage.ts';
import { emptyDatabase, type TestDatabase, testDatabase } from './testing.ts';

let empty: Awaited<ReturnType<typeof emptyDatabase>>;
let admin: postgres.Sql;

beforeEach(async () => {
  empty = await emptyDatabase();
  admin = postgres(empty.url, { max: 3, onnotice: () => {} });
});
afterEach(async () => {
  await admin.end();
  await empty.drop();
});

/** Another process that opens the database and closes it. */
async function openElsewhere(): Promise<{ code: number; complaint: string }> {
  const module = join(import.meta.dirname, 'database.ts');
  const code = `const m = await import(${JSON.stringify(module)}); await m.openDatabase(process.env.DATABASE_URL); await m.closeDatabases()`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code], {
    env: { ...process.env, DATABASE_URL: empty.url },
  });
  const [complaint, [exit]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  return { code: exit as number, complaint };
}

const applied = () => admin`select id from schema_migrations order by id`;
const everyId = migrations.map(({ id }) => ({ id }));

describe('migrations', () => {
  it('are numbered upwards, each number once', () => {
    const ids = migrations.map(({ id }) => id);
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
  });

  it('are applied once when eight processes start at once on an empty database', async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, openElsewhere));
    expect(opened).toEqual(Array.from({ length: 8 }, () => ({ code: 0, complaint: '' })));
    expect(await applied()).toEqual(everyId);
  });

  it('are done by the next one when the one at it dies in the middle', async () => {
    const dying = postgres(empty.url, { max: 1, onnotice: () => {} });
    const [backend] = await dying`select pg_backend_pid() as pid`;
    await dying.unsafe(`begin; select pg_advisory_xact_lock(7301414); create table features (half int)`);
    const waiting = openElsewhere();
    const waits = () => admin`select from pg_locks where locktype = 'advisory' and not granted`;
    await expect.poll(async () => (await waits()).length, { timeout: 20_000 }).toBe(1);
    await admin`select pg_terminate_backend(${backend?.pid})`;
    expect(await waiting).toEqual({ code: 0, complaint: '' });
    expect(await applied()).toEqual(everyId);
    await dying.end({ timeout: 0 });
  });

  it('of a newer release leave an older pod working, which still adds what it misses itself', async () => {
    expect(await openElsewhere()).toEqual({ code: 0, complaint: '' });
    const last = migrations.at(-1)?.id ?? 0;
    await admin`insert into schema_migrations (id, name) values (${last + 100}, 'of the future')`;
    await admin`drop table outbox`;
    await admin`delete from schema_migrations where id = 4`;
    expect(await openElsewhere()).toEqual({ code: 0, complaint: '' });
    expect(await applied()).toEqual([...everyId, { id: last + 100 }]);
  });
});

describe('a database that cannot be used', () => {
  const open = (change: (url: URL) => void) => {
    const url = new URL(empty.url);
    change(url);
    return openDatabase(url.href);
  };
  const place = () => `PostgreSQL at ${new URL(empty.url).host}/`;

  it.each<[string, (url: URL) => void, string, RegExp]>([
    [
      'wrong password',
      (url) => {
        url.password = 'secret-guess';
      },
      'database-refused',
      /refuses the user .* DATABASE_URL/,
    ],
    [
      'missing database',
      (url) => {
        url.pathname = '/nowhere';
      },
      'database-refused',
      /no such database: create it/,
    ],
    [
      'nobody there',
      (url) => {
        url.port = '1';
      },
      'database-unavailable',
      /Check DATABASE_URL and that the server runs/,
    ],
  ])('%s is named, with the cure and without the password', async (_name, change, code, sentence) => {
    const failure = await open(change).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code, status: 503, message: expect.stringMatching(sentence) });
    expect(String(failure)).not.toMatch(/secret-guess/);
    expect(String(failure)).not.toContain(new URL(empty.url).password);
    expect(String(failure)).toContain('PostgreSQL at 127.0.0.1:');
  });

  it('a user with no connection left is told so', async () => {
    await admin.unsafe(
      `drop role if exists crowded; create role crowded login password 'crowded' connection limit 0`,
    );
    const failure = open((url) => {
      url.username = 'crowded';
      url.password = 'crowded';
    });
    await expect(failure).rejects.toMatchObject({
      code: 'database-busy',
      message: expect.stringContaining(place()),
    });
    await admin.unsafe('drop role crowded');
  });

  it('a database that takes no writes is told from one that is away', async () => {
    await admin.unsafe(`alter database ${empty.name} set default_transaction_read_only = on`);
    await expect(open(() => {})).rejects.toMatchObject({
      code: 'database-read-only',
      message: expect.stringContaining(place()),
    });
  });
});

describe('time limits', () => {
  let database: TestDatabase;
  beforeEach(async () => {
    process.env.DATABASE_STATEMENT_TIMEOUT_MS = '300';
    process.env.DATABASE_LOCK_TIMEOUT_MS = '100';
    database = await testDatabase();
  });
  afterEach(async () => {
    delete process.env.DATABASE_STATEMENT_TIMEOUT_MS;
    delete process.env.DATABASE_LOCK_TIMEOUT_MS;
    await database.drop();
  });

  it('end a statement that takes too long, and the connection lives on', async () => {
    const slow = query(database.db, () => database.db`select pg_sleep(30)`);
    await expect(slow).rejects.toMatchObject({
      code: 'database-timeout',
      message: expect.stringMatching(/statement timeout.*DATABASE_STATEMENT_TIMEOUT_MS/),
    });
    expect(await database.db`select 1 as one`).toEqual([{ one: 1 }]);
  });

  it('end the wait for a lock', async () => {
    const holder = postgres(database.url, { max: 1 });
    await holder.unsafe('begin; lock table steps');
    const held = query(database.db, () => database.db`select count(*) from steps`);
    await expect(held).rejects.toMatchObject({
      code: 'database-timeout',
      message: expect.stringMatching(/lock.*DATABASE_LOCK_TIMEOUT_MS/),
    });
    await holder.unsafe('rollback');
    await holder.end();
  });
});
