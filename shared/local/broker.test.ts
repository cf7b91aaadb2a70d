import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Event } from '../events.ts';
import type { Trigger } from '../function/triggers.ts';
import { claimStep, finishStep, releaseLeases } from '../stores/steps.ts';
import { testDatabase } from '../stores/testing.ts';
import { type Broker, createBroker, type DeadLetter, type Result } from './broker.ts';
import { openJournal } from './journal.ts';
import { openProcesses, type Processes } from './processes.ts';
import { reconcile } from './reconcile.ts';
import { writeFunction } from './testing-functions.ts';

const logger = pino({ level: 'silent' });
let folder: string;
let closing: (() => Promise<unknown>)[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-broker-'));
  closing = [];
});

afterEach(async () => {
  for (const close of closing.reverse()) await close();
  await rm(folder, { recursive: true, force: true });
});

/** Statements of a function that answers with an event of a type. */
const answer = (type: string) =>
  `reply(200, { 'ce-id': 'result-of-' + request.headers['ce-id'], 'ce-source': '/functions/test', 'ce-specversion': '1.0',
    'ce-type': '${type}', 'content-type': request.headers['content-type'] }, request.body);`;

const event = (type: string, attributes: Partial<Event> = {}): Event => ({
  specversion: '1.0',
  id: '1',
  source: '/test',
  type,
  data: { size: 1 },
  knativearrivaltime: '2026-01-01T00:00:00Z',
  ...attributes,
});

function trigger(type: string, name: string, retry = 3): Trigger {
  const delivery = { retry, backoffPolicy: 'exponential', backoffDelayMs: 5 } as const;
  return { name, function: name, runs: 'service', delivery, matches: (candidate) => candidate.type === type };
}

/** Statements of a function that works on the event in its file, as a JobSink starts it. */
const job = (statements: string) => `
  if (process.env.K_EVENT_PATH) {
    const given = JSON.parse(readFileSync(process.env.K_EVENT_PATH, 'utf8'));
    const log = (line) => appendFileSync(process.env.FOLDER + '/worked', line + '\\n');
    ${statements}
  }`;

const add = (name: string, body: string, before?: string) =>
  writeFunction(join(folder, 'dist'), name, body, before);

async function open(triggers: Trigger[]): Promise<Watched> {
  const processes = openProcesses({
    distDir: join(folder, 'dist'),
    logsDir: join(folder, 'logs'),
    env: { FOLDER: folder },
    logger,
  });
  const journal = await openJournal(join(folder, 'journal'), logger);
  const broker = createBroker({ triggers, processes, journal, logger, longestWaitMs: 50 });
  const results: Result[] = [];
  const letters: DeadLetter[] = [];
  broker.onResult((result) => results.push(result));
  broker.onDeadLetter((letter) => letters.push(letter));
  const stop = async () => {
    const stopped = broker.stop();
    await processes.stop();
    await stopped;
  };
  closing.push(stop);
  return { broker, processes, results, letters, stop };
}

interface Watched {
  broker: Broker;
  processes: Processes;
  results: Result[];
  letters: DeadLetter[];
  stop(): Promise<void>;
}

const journalled = () => readdir(join(folder, 'journal'));

describe('the broker', () => {
  test('leads an event from function to function by its triggers', async () => {
    await add('first', answer('middle'));
    await add('second', answer('end'));
    const { broker, results, letters } = await open([trigger('begin', 'first'), trigger('middle', 'second')]);
    await broker.publish(event('begin', { data: { photo: 'Löwenzahn' }, subject: 'größe 1' }));
    await broker.idle();
    expect(results.map(({ function: name, result }) => [name, result.type, result.id, result.data])).toEqual([
      ['first', 'middle', 'result-of-1', { photo: 'Löwenzahn' }],
      ['second', 'end', 'result-of-result-of-1', { photo: 'Löwenzahn' }],
    ]);
    expect(letters).toEqual([]);
    expect(await journalled()).toEqual([]);
  });

  test('hands an event that no trigger wants to those who listen, and forgets it', async () => {
    const { broker } = await open([trigger('begin', 'first')]);
    const heard: string[] = [];
    broker.onAccepted(({ type }) => heard.push(type));
    await broker.publish(event('rain'));
    expect(heard).toEqual(['rain']);
    expect(await journalled()).toEqual([]);
  });

  test.each([404, 408, 409, 429, 500, 503])('tries again after %d', async (status) => {
    await add('moody', `if (++calls < 3) return reply(${status}); ${answer('done')}`, 'let calls = 0;');
    const { broker, results } = await open([trigger('begin', 'moody')]);
    await broker.publish(event('begin'));
    await broker.idle();
    expect(results).toHaveLength(1);
  });

  test('tries again with a new process when one dies over an event', async () => {
    await add('mortal', `if (started === 1) process.exit(1); ${answer('done')}`);
    const { broker, results } = await open([trigger('begin', 'mortal')]);
    await broker.publish(event('begin'));
    await broker.idle();
    expect(results).toHaveLength(1);
  });

  test.each([400, 413, 415, 422])('takes %d for final: a dead letter with the reason', async (status) => {
    const problem = JSON.stringify({ title: 'No', detail: 'The label is odd.', code: 'bad-label', status });
    await add('strict', `reply(${status}, {}, ${JSON.stringify(problem)})`);
    const { broker, letters } = await open([trigger('begin', 'strict')]);
    await broker.publish(event('begin'));
    await broker.idle();
    expect(letters).toMatchObject([
      {
        function: 'strict',
        attempts: 1,
        problem: { status, code: 'bad-label', detail: 'The label is odd.' },
      },
    ]);
    expect(await journalled()).toEqual([]);
  });

  test('gives up after the retries its trigger grants', async () => {
    await add('down', "reply(500, {}, 'not even a problem document')");
    const { broker, letters } = await open([trigger('begin', 'down', 2)]);
    await broker.publish(event('begin'));
    await broker.idle();
    expect(letters).toMatchObject([{ function: 'down', attempts: 3, problem: { status: 500 } }]);
  });

  test('takes an answer that is no event for a failure, an empty one for none', async () => {
    await add('chatty', "reply(200, { 'content-type': 'application/json' }, '{}')");
    await add('quiet', 'reply(204)');
    const { broker, letters, results } = await open([
      trigger('begin', 'chatty', 1),
      trigger('begin', 'quiet'),
    ]);
    await broker.publish(event('begin'));
    await broker.idle();
    expect(letters).toMatchObject([{ function: 'chatty', problem: { code: 'bad-result' } }]);
    expect(results).toEqual([]);
  });

  test('sends the same event once to a function that already has it', async () => {
    await add(
      'slow',
      `await sleep(100); calls += 1; reply(200, { 'ce-id': String(calls), 'ce-source': '/s',
      'ce-specversion': '1.0', 'ce-type': 'done' })`,
      'let calls = 0;',
    );
    const { broker, results } = await open([trigger('begin', 'slow')]);
    await Promise.all([broker.publish(event('begin')), broker.publish(event('begin'))]);
    await broker.send(event('begin'), 'slow');
    await broker.idle();
    expect(results.map(({ result }) => result.id)).toEqual(['1']);
  });
});

describe('a dead letter', () => {
  const withSink = (type: string, name: string): Trigger => {
    const plain = trigger(type, name, 1);
    return {
      ...plain,
      delivery: { ...plain.delivery, deadLetterSink: { function: 'office', path: '/letters' } },
    };
  };

  test('goes to the sink of its trigger as Knative sends it, and stays on disk until it is taken', async () => {
    const problem = JSON.stringify({ title: 'No', detail: 'Löwenzahn? No.', code: 'bad-label', status: 422 });
    await add('strict', `reply(422, {}, ${JSON.stringify(problem)})`);
    const open422 = "const { existsSync } = await import('node:fs');";
    const note =
      "appendFileSync(process.env.FOLDER + '/letters', JSON.stringify([request.url, request.headers]));";
    await add(
      'office',
      `if (!existsSync(process.env.FOLDER + '/open')) return reply(503); ${note} reply(204)`,
      open422,
    );
    const first = await open([withSink('begin', 'strict')]);
    await first.broker.publish(event('begin'));
    await expect.poll(() => first.processes.running().map(({ name }) => name)).toContain('office');
    await first.stop();
    expect(first.letters).toEqual([]);
    expect(await journalled()).toHaveLength(1);
    await writeFile(join(folder, 'open'), '');
    const second = await open([withSink('begin', 'strict')]);
    await second.broker.resume();
    await second.broker.idle();
    expect(second.letters).toHaveLength(1);
    expect(await journalled()).toEqual([]);
    const [path, headers] = JSON.parse(await readFile(join(folder, 'letters'), 'utf8'));
    expect([path, headers['ce-knativeerrordest'], headers['ce-knativeerrorcode']]).toEqual([
      ...['/letters', '/function/strict', '422'],
    ]);
    const data = Buffer.from(headers['ce-knativeerrordata'], 'base64').toString();
    expect(JSON.parse(data)).toMatchObject({ code: 'bad-label', detail: 'Löwenzahn? No.' });
  });
});

describe('nothing accepted is lost', () => {
  test('an event that was on its way at the stop is taken up by the next start', async () => {
    const before = "const { existsSync } = await import('node:fs');";
    await add(
      'patient',
      `if (!existsSync(process.env.FOLDER + '/open')) return reply(503); ${answer('done')}`,
      before,
    );
    const first = await open([trigger('begin', 'patient', 1000)]);
    await first.broker.publish(event('begin', { data: Buffer.from('bytes'), datacontenttype: 'image/png' }));
    await first.stop();
    await first.broker.publish(event('begin', { id: '2' }));
    expect(await journalled()).toHaveLength(2);
    await writeFile(join(folder, 'open'), '');
    const second = await open([trigger('begin', 'patient')]);
    expect(await second.broker.resume()).toBe(2);
    await second.broker.idle();
    expect(second.results.map(({ result }) => result.data)).toContainEqual(Buffer.from('bytes'));
    expect(await journalled()).toEqual([]);
  });

  test('runs without an outcome and results without a successor go on after a restart', async () => {
    const { db, drop } = await testDatabase();
    closing.push(drop);
    const record = "const { appendFileSync: note } = await import('node:fs');";
    const noting = (name: string) =>
      `note(process.env.FOLDER + '/calls', '${name} ' + request.headers['ce-id'] + '\\n');`;
    await add('first', `${noting('first')} ${answer('middle')}`, record);
    await add('second', `${noting('second')} reply(204)`, record);
    const lease = { owner: 'dead', leaseMs: 60_000 };
    await claimStep(db, { ...lease, function: 'first', event: event('begin', { id: 'unfinished' }) });
    const finish = async (name: string, id: string, result: Event | undefined) => {
      const { run } = await claimStep(db, { ...lease, function: name, event: event('begin', { id }) });
      await finishStep(db, { id: run.id, attempt: run.attempt }, { status: 'succeeded', result });
    };
    await finish('first', 'finished', event('middle', { id: 'lost' }));
    const byHand = event('begin', { id: 'by-hand', knativearrivaltime: undefined });
    const { run } = await claimStep(db, { ...lease, function: 'first', event: byHand });
    const result = event('middle', { id: 'for-its-caller' });
    await finishStep(db, { id: run.id, attempt: run.attempt }, { status: 'succeeded', result });
    await finish('first', 'complete', event('middle', { id: 'arrived' }));
    await finish('second', 'arrived', undefined);
    await releaseLeases(db, 'dead');
    const { broker } = await open([trigger('begin', 'first'), trigger('middle', 'second')]);
    expect(await reconcile(db, broker, logger)).toBe(2);
    await broker.idle();
    const calls = (await readFile(join(folder, 'calls'), 'utf8')).trim().split('\n').sort();
    expect(calls).toEqual(['first unfinished', 'second lost', 'second result-of-unfinished']);
  });
});

describe('a trigger of a job', () => {
  const jobTrigger = (retry?: number): Trigger => ({ ...trigger('stored', 'train', retry), runs: 'job' });
  const worked = () => readFile(join(folder, 'worked'), 'utf8');

  test('starts a process an event, which ends with its work', async () => {
    await add('train', 'reply(500)', job("log(given.id + ' ' + given.data.size); process.exit(0);"));
    const { broker, processes, letters } = await open([jobTrigger()]);
    await Promise.all(['a', 'b'].map((id) => broker.publish(event('stored', { id }))));
    await broker.idle();
    expect((await worked()).trim().split('\n').sort()).toEqual(['a 1', 'b 1']);
    expect([processes.running(), letters]).toEqual([[], []]);
    expect(await readdir(join(folder, 'journal'))).toEqual([]);
  });

  test('starts another when one failed', async () => {
    await add('train', '', job('log(String(started)); process.exit(started < 3 ? 1 : 0);'));
    const { broker, letters } = await open([jobTrigger()]);
    await broker.publish(event('stored'));
    await broker.idle();
    expect((await worked()).trim().split('\n')).toEqual(['1', '2', '3']);
    expect(letters).toEqual([]);
  });

  test('gives up at once what a job refused for good, and tells of it', async () => {
    await add('train', '', job("console.error('no such dataset'); process.exit(2);"));
    const { broker, letters } = await open([jobTrigger()]);
    await broker.publish(event('stored'));
    await broker.idle();
    expect(letters).toMatchObject([{ function: 'train', attempts: 1 }]);
    expect(letters[0]?.problem.detail).toContain('no such dataset');
  });

  test('is broken off by the stop of the platform, and taken up by the next one', async () => {
    await add('train', '', job("log('begun'); if (started === 1) await sleep(600_000); process.exit(0);"));
    const first = await open([jobTrigger()]);
    await first.broker.publish(event('stored'));
    await expect.poll(() => worked().catch(() => ''), { timeout: 30_000 }).toBe('begun\n');
    await first.stop();
    const second = await open([jobTrigger()]);
    expect(await second.broker.resume()).toBe(1);
    await second.broker.idle();
    expect(await worked()).toBe('begun\nbegun\n');
  });
});
