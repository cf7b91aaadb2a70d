import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvent, type Event } from '../events.ts';
import {
  CRASH_LIMIT,
  claimStep,
  eventDigest,
  findStep,
  finishStep,
  giveUpSteps,
  heartbeatStep,
  listRuns,
  listUnfinished,
  purgeSteps,
  releaseLeases,
  releaseStep,
  retryStep,
  takeOverStep,
  takeOverSteps,
  writeProgress,
} from './steps.ts';
import { pagesOfSucceeded } from './succeeded-steps.ts';
import { type TestDatabase, testDatabase } from './testing.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

const base = { function: 'train', leaseMs: 30_000 };
const problem = { type: 'x', title: 'x', status: 503, detail: 'x', code: 'internal' } as const;

function event(id: string, reason = 'test'): Event {
  return createEvent({
    type: 'dev.dandelion.retrain.requested.v1',
    source: '/tests',
    id,
    data: { model: 'flowers', source: { kind: 'folder', uri: 'file:///photos' }, seed: 1, reason },
  });
}

const claim = (id: string, owner = 'a', leaseMs = 30_000) =>
  claimStep(database.db, { ...base, owner, leaseMs, event: event(id) });

/** A run whose worker is gone: its lease has expired. */
async function abandoned(id: string) {
  const { run } = await claim(id, 'dead');
  await database.db`update steps set lease_until = now() - interval '1 second' where id = ${run.id}`;
  return run;
}

describe('the key of a run', () => {
  it('lets one of many claims of an event win', async () => {
    const claims = await Promise.all(
      Array.from({ length: 20 }, (_, index) => claim('race', `owner-${index}`)),
    );
    expect(claims.filter(({ claimed }) => claimed)).toHaveLength(1);
    expect(new Set(claims.map(({ run }) => run.id)).size).toBe(1);
  });

  it('refuses the same key with another body', async () => {
    await claim('reused');
    const again = claimStep(database.db, { ...base, owner: 'a', event: event('reused', 'another') });
    await expect(again).rejects.toMatchObject({ code: 'event-reused', status: 422 });
  });

  it('looks at type, subject and data, not at time, trace or the order of keys', () => {
    const first: Event = { ...event('x'), data: { a: 1, b: { c: [1], d: 2 } } };
    const same: Event = {
      ...first,
      time: '2020-01-01T00:00:00Z',
      traceparent: 'x',
      data: { b: { d: 2, c: [1] }, a: 1 },
    };
    expect(eventDigest(same)).toBe(eventDigest(first));
    expect(eventDigest({ ...first, subject: 's' })).not.toBe(eventDigest(first));
    expect(eventDigest({ ...first, data: Buffer.from('x') })).not.toBe(eventDigest(first));
  });

  it('keeps an event and a result with bytes and awkward characters as they were', async () => {
    const odd: Event = { ...event('odd'), subject: 'é\u2028', data: { text: 'nul \u0000, 🌼' } };
    const { run } = await claimStep(database.db, { ...base, owner: 'a', event: odd });
    const result: Event = { ...event('odd-result'), data: Buffer.from([0, 1, 255]) };
    await finishStep(database.db, run, { status: 'succeeded', result });
    const found = await findStep(database.db, 'train', run.id);
    expect(found?.event).toEqual(odd);
    expect(found?.result).toEqual(result);
  });
});

it('says that the database is away when it is, so that callers try again', async () => {
  const closed = postgres(database.url, { max: 1 });
  await closed.end();
  const claiming = claimStep(closed, { ...base, owner: 'a', event: event('away') });
  await expect(claiming).rejects.toMatchObject({ code: 'database-unavailable', status: 503 });
});

describe('attempts', () => {
  it('gives a finished run no second attempt when its answer stands', async () => {
    const { run } = await claim('final');
    await finishStep(database.db, run, { status: 'succeeded', result: undefined });
    expect(await claim('final')).toMatchObject({ claimed: false, run: { status: 'succeeded', attempt: 1 } });
  });

  it.each([
    ['a refusal stands', true, false],
    ['a failure is tried again', false, true],
  ])('%s', async (name, final, claimed) => {
    const { run } = await claim(name);
    await finishStep(database.db, run, { status: 'failed', problem, final });
    expect((await claim(name)).claimed).toBe(claimed);
  });

  it('retries a run whatever its answer was, and never one that is worked on', async () => {
    const { run } = await claim('retried');
    const request = { ...base, owner: 'b', id: run.id };
    expect(await retryStep(database.db, request)).toBeUndefined();
    await finishStep(database.db, run, { status: 'succeeded', result: undefined });
    expect(await retryStep(database.db, request)).toMatchObject({
      attempt: 2,
      status: 'running',
      leaseOwner: 'b',
    });
  });
});

describe('leases', () => {
  it('lets only the newest attempt write', async () => {
    const stale = await abandoned('fenced');
    const fresh = await takeOverStep(database.db, { ...base, owner: 'b', id: stale.id });
    expect(fresh).toMatchObject({ attempt: 2 });
    expect(await heartbeatStep(database.db, stale, 1000)).toBe(false);
    expect(await writeProgress(database.db, stale, { done: 1, total: 2 })).toBe(false);
    expect(await finishStep(database.db, stale, { status: 'succeeded', result: event('stale') })).toBe(false);
    expect(await releaseStep(database.db, stale)).toBe(false);
    expect(await findStep(database.db, 'train', stale.id)).toMatchObject({ status: 'running', result: null });
  });

  it('gives nothing away that is still leased', async () => {
    const { run } = await claim('leased');
    expect(await takeOverStep(database.db, { ...base, owner: 'b', id: run.id })).toBeUndefined();
  });

  it('hands a released run to the next one at once', async () => {
    const { run } = await claim('released');
    expect(await releaseStep(database.db, run)).toBe(true);
    expect(await findStep(database.db, 'train', run.id)).toMatchObject({ status: 'queued', abandoned: true });
    expect((await claim('released', 'b')).run).toMatchObject({ attempt: 2, leaseOwner: 'b' });
  });

  it('sweeps what was left, each run once, without those it is told to leave', async () => {
    const runs = await Promise.all(['s1', 's2', 's3', 's4'].map(abandoned));
    const kept = runs[0]?.id ?? '';
    const sweep = (owner: string) =>
      takeOverSteps(database.db, { ...base, owner, limit: 10, except: [kept] });
    const taken = (await Promise.all([sweep('b'), sweep('c')])).flat();
    const mine = taken.filter(({ id }) => runs.some((run) => run.id === id));
    expect(mine.map(({ id }) => id).sort()).toEqual(
      runs
        .slice(1)
        .map(({ id }) => id)
        .sort(),
    );
  });

  it('hands back all runs of a process known to be dead', async () => {
    const { run } = await claim('killed', 'killed-process');
    expect(await releaseLeases(database.db, 'killed-process')).toEqual([run.id]);
    expect((await claim('killed', 'b')).claimed).toBe(true);
  });

  it('gives up an event that ends its process again and again', async () => {
    const { run } = await claim('poison', 'p');
    for (let crash = 1; crash < CRASH_LIMIT; crash++) {
      await releaseLeases(database.db, 'p');
      expect(await takeOverStep(database.db, { ...base, owner: 'p', id: run.id })).toBeDefined();
    }
    await releaseLeases(database.db, 'p');
    expect(await takeOverStep(database.db, { ...base, owner: 'p', id: run.id })).toBeUndefined();
    expect(await giveUpSteps(database.db, 'train', problem)).toBe(1);
    expect(await findStep(database.db, 'train', run.id)).toMatchObject({ status: 'failed', final: false });
    expect((await claim('poison', 'p')).claimed).toBe(true);
  });
});

describe('looking', () => {
  it('knows nothing of the runs of other functions', async () => {
    const { run } = await claim('theirs');
    expect(await findStep(database.db, 'evaluate', run.id)).toBeUndefined();
  });

  it('lists runs by change, outcome and function', async () => {
    const { run } = await claim('listed');
    const unfinished = await listUnfinished(database.db);
    expect(unfinished.map(({ id }) => id)).toContain(run.id);
    await finishStep(database.db, run, { status: 'succeeded', result: event('r') });
    expect((await listRuns(database.db, { function: 'train' })).at(-1)?.id).toBe(run.id);
    expect(await listRuns(database.db, { function: 'evaluate' })).toEqual([]);
    for await (const page of pagesOfSucceeded(database.db, { graceMs: 0 })) {
      expect(page.at(-1)).toMatchObject({ id: run.id, result: { id: 'r' } });
    }
  });

  it('pages through succeeded runs without leaving one out or bringing one twice', async () => {
    await database.db`delete from steps`;
    for (const id of ['1', '2', '3', '4', '5']) {
      const { run } = await claim(id);
      await finishStep(database.db, run, { status: 'succeeded', result: event(`r${id}`) });
    }
    const { run } = await claim('empty');
    await finishStep(database.db, run, { status: 'succeeded', result: undefined });
    // Several of one moment, with microseconds.
    await database.db`update steps set updated_at = '2026-01-01T00:00:00.123456Z' where event_id in ('2', '3', '4')`;
    const pages: string[][] = [];
    for await (const page of pagesOfSucceeded(database.db, { graceMs: 0, page: 2 })) {
      pages.push(page.map(({ result }) => result.id));
    }
    expect(pages.map((page) => page.length)).toEqual([2, 2, 1]);
    expect(pages.flat().sort()).toEqual(['r1', 'r2', 'r3', 'r4', 'r5']);
    expect(pages.flat().slice(3)).toEqual(['r1', 'r5']);
    const late = pagesOfSucceeded(database.db, { graceMs: 3_600_000 });
    for await (const page of late) expect(page).toEqual([]);
  });

  it('forgets what finished long ago, and only that', async () => {
    const { run } = await claim('old');
    await finishStep(database.db, run, { status: 'succeeded', result: undefined });
    await database.db`update steps set finished_at = now() - interval '31 days' where id = ${run.id}`;
    expect(await purgeSteps(database.db, 30 * 24 * 3_600_000)).toBe(1);
    expect(await findStep(database.db, 'train', run.id)).toBeUndefined();
  });
});
