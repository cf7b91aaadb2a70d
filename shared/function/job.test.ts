import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Event, resultIdOf, runIdOf } from '../events.ts';
import { listDeadLetters } from '../stores/dead-letters.ts';
import { claimStep, findStep } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { openWay } from '../stores/testing-way.ts';
import { encodeStructured } from './cloudevents.ts';
import { type StepPlan, stepEvent } from './fixtures/functions.ts';
import { type FixtureSink, startSink } from './fixtures/sink.ts';

const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));
let database: TestDatabase;
let broker: FixtureSink;
let folder: string;
const children: ChildProcess[] = [];

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(async () => {
  broker = await startSink();
  folder = await mkdtemp(join(tmpdir(), 'job-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await broker.close();
  await rm(folder, { recursive: true, force: true });
});
afterAll(() => database.drop());

/** An event as a JobSink hands it on. */
function delivered(id: string, plan: StepPlan = {}): Event {
  return { ...stepEvent(id, plan), executionclass: 'long', knativearrivaltime: '2026-01-01T00:00:00Z' };
}

async function launch(event: Event, env: Record<string, string | undefined> = {}) {
  const path = join(folder, 'event');
  await writeFile(path, encodeStructured(event).body ?? '');
  const given = { K_EVENT_PATH: path, DATABASE_URL: database.url, K_SINK: broker.url, LOG_LEVEL: 'fatal' };
  const child = spawn(process.execPath, [entry, 'step'], {
    // As the settings of the cluster have it for Services.
    env: { ...process.env, RESULT_DELIVERY: 'sink', ...given, ...env },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  children.push(child);
  return { child, ended: once(child, 'close').then(([code]) => code as number | null) };
}

async function run(event: Event, env: Record<string, string | undefined> = {}): Promise<number | null> {
  return (await launch(event, env)).ended;
}

const runOf = ({ source, id }: Event) => findStep(database.db, 'step', runIdOf('step', source, id));
const lettersOf = async (event: Event) =>
  (await listDeadLetters(database.db, { all: true, limit: 100 })).filter(
    (each) => each.event.id === event.id,
  );
const idsAtBroker = () => broker.events.map(({ id }) => id);

describe('a job', () => {
  it('works on the event in its file, brings the result to the broker and ends', async () => {
    const event = delivered('once');
    expect(await run(event)).toBe(0);
    expect(idsAtBroker()).toEqual([resultIdOf('step', event.source, event.id)]);
    expect(await runOf(event)).toMatchObject({ status: 'succeeded', attempt: 1 });
  });

  it('sends the result that an earlier one had worked out, and does not work again', async () => {
    const event = delivered('repeated');
    broker.answer = 503;
    expect(await run(event, { JOB_SEND_WITHIN_MS: '1' })).toBe(1);
    broker.answer = 202;
    broker.events = [];
    expect(await run(event)).toBe(0);
    expect(broker.events).toMatchObject([{ data: { metrics: { images: 1 } } }]);
  });

  it('waits for a broker that is away', async () => {
    broker.answer = 503;
    const { ended } = await launch(delivered('patient'));
    await expect.poll(() => broker.events.length, { timeout: 30_000 }).toBeGreaterThan(0);
    broker.answer = 202;
    expect(await ended).toBe(0);
  });

  it('waits for a broker that answers when the steps behind it have, and sends once', async () => {
    broker.answer = 0;
    const { ended } = await launch(delivered('unhurried'), { LEASE_MS: '400', HEARTBEAT_MS: '100' });
    await expect.poll(() => broker.events.length, { timeout: 30_000 }).toBe(1);
    // Several times as long as a notice would wait.
    await sleep(1000);
    await broker.release(202);
    expect(await ended).toBe(0);
    expect(broker.events).toHaveLength(1);
  });

  it('goes on when the database is away for a while in the middle of the work', async () => {
    const way = await openWay(database.url);
    const event = delivered('outage', { ms: 9000 });
    const { ended } = await launch(event, { DATABASE_URL: way.url });
    await expect.poll(async () => (await runOf(event))?.status, { timeout: 30_000 }).toBe('running');
    await way.shut();
    // Longer than the job waits for news of its run.
    await sleep(6000);
    await way.open();
    expect(await ended).toBe(0);
    expect(idsAtBroker()).toEqual([resultIdOf('step', event.source, event.id)]);
    expect(await runOf(event)).toMatchObject({ status: 'succeeded', attempt: 1 });
    await way.close();
  });

  it('leaves what is refused for good with the dead letters, and says that no repeat helps', async () => {
    const event = delivered('poison', { fail: 'bad-data' });
    expect(await run(event)).toBe(2);
    expect(await lettersOf(event)).toMatchObject([
      { destination: 'step', status: 422, cause: 'bad-data: The plan says so.' },
    ]);
    expect(broker.events).toEqual([]);
  });

  it('asks for a repeat after trouble, until it was repeated often enough', async () => {
    const event = delivered('trouble', { fail: 'internal' });
    expect(await run(event, { JOB_TRIES: '2' })).toBe(1);
    expect(await lettersOf(event)).toEqual([]);
    expect(await run(event, { JOB_TRIES: '2' })).toBe(2);
    expect(await lettersOf(event)).toMatchObject([{ status: 500 }]);
  });

  it('hands its run back when it is told to stop, so that the next one goes on at once', async () => {
    const event = delivered('moved', { ms: 600_000 });
    const { child, ended } = await launch(event, { GRACE_PERIOD_MS: '10' });
    await expect.poll(async () => (await runOf(event))?.status, { timeout: 30_000 }).toBe('running');
    child.kill('SIGTERM');
    expect(await ended).toBe(1);
    expect(await runOf(event)).toMatchObject({ status: 'queued' });
  });

  it('takes over nothing that others left', async () => {
    const left = delivered('left', { ms: 600_000 });
    await claimStep(database.db, { function: 'step', owner: 'dead', leaseMs: 1, event: left });
    expect(await run(delivered('own'))).toBe(0);
    expect(await runOf(left)).toMatchObject({ leaseOwner: 'dead', attempt: 1 });
  });

  it('finds the event where the path names the folder it is in, as Knative Eventing 1.15.0 has it', async () => {
    const event = delivered('folder');
    expect(await run(event, { K_EVENT_PATH: folder })).toBe(0);
    expect(await runOf(event)).toMatchObject({ status: 'succeeded' });
  });

  it.each([
    ['a file that is not there', { K_EVENT_PATH: '/nowhere/event' }],
    ['no broker', { K_SINK: undefined, RESULT_DELIVERY: undefined }],
    ['no ledger', { DATABASE_URL: undefined }],
  ])('ends with 1 where there is %s', async (_what, env) => {
    expect(await run(delivered('unset'), env)).toBe(1);
    expect(broker.events).toEqual([]);
  });
});
