import postgres from 'postgres';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { listCandidates, readDataset, storeDataset } from './datasets.ts';
import { missingFeatures, readFeatures, storeFeatures } from './features.ts';
import { recordGroups } from './images.ts';
import { claimNotices } from './outbox.ts';
import { findStep, giveUpSteps, takeOverSteps } from './steps.ts';
import { knownSteps, pagesOfSucceeded } from './succeeded-steps.ts';
import { type TestDatabase, testDatabase } from './testing.ts';
import { fillDatabase } from './testing-filled.ts';

const model = 'flowers';
const photos = 20_000;
const extractor = { id: 'noise', dimension: 4 };
let database: TestDatabase;
let sha256: string[];
let version: string;

beforeAll(async () => {
  database = await testDatabase();
  const { db } = database;
  // A second model, so that most of each big table is somebody else's.
  await fillDatabase(db, 'others', photos);
  await db`delete from steps`;
  await db`delete from outbox`;
  await fillDatabase(db, model, photos);
  sha256 = (await db<{ sha256: string }[]>`select sha256 from images where model = ${model} order by 1`).map(
    (row) => row.sha256,
  );
  const vector = Float32Array.of(1, 2, 3, 4);
  const rows = sha256.map((digest) => ({ sha256: digest, vector, augmentedVector: vector, statistics: {} }));
  await storeFeatures(db, model, extractor.id, rows);
  // The version that is read is a small part of the table, as after many trainings.
  for (const [label, share] of [
    ['a', 1],
    ['b', 1],
    ['c', 0.02],
  ] as const) {
    const images = sha256.slice(0, photos * share).map((digest, index) => ({
      ...{ sha256: digest, label, group: digest },
      split: index % 10 === 0 ? ('test' as const) : ('train' as const),
    }));
    ({ version } = await storeDataset(db, { model, ingestion: model, seed: 1, images }));
  }
  // One after the other, with results, as functions finish.
  await db`update steps set result = '{}', updated_at = now() - event_id::int * interval '1 second'`;
  await db.unsafe('analyze');
});
afterAll(() => database.drop());

interface Plan {
  'Node Type': string;
  'Relation Name'?: string;
  'Actual Loops'?: number;
  Plans?: Plan[];
}

function scansOf(plan: Plan): string[] {
  const here =
    plan['Node Type'] === 'Seq Scan' && plan['Relation Name'] !== undefined ? [plan['Relation Name']] : [];
  return [...here, ...(plan.Plans ?? []).flatMap(scansOf)];
}

/** Runs real code and asks the server how it does each of the statements that were sent. */
async function sequentialScans(run: (db: TestDatabase['db']) => Promise<unknown>): Promise<string[]> {
  const sent: { text: string; parameters: unknown[] }[] = [];
  const db = postgres(database.url, {
    max: 1,
    fetch_types: false,
    types: database.db.options.types as Record<string, postgres.PostgresType>,
    debug: (_connection, text, parameters) =>
      void (text.startsWith('explain') || sent.push({ text, parameters: [...parameters] })),
  });
  try {
    await run(db);
    expect(sent.length).toBeGreaterThan(0);
    const scans: string[] = [];
    for (const { text, parameters } of sent) {
      const rows = await db.unsafe(`explain (format json) ${text}`, parameters as never[], { prepare: true });
      const [{ Plan: plan }] = (rows[0] as unknown as { 'QUERY PLAN': [{ Plan: Plan }] })['QUERY PLAN'];
      scans.push(...scansOf(plan));
    }
    return scans;
  } finally {
    await db.end();
  }
}

const lease = { function: 'train', owner: 'a', leaseMs: 1000 };
const problem = { type: 't', title: 't', status: 500, detail: 'd', code: 'worker-died' as const };
const wanted = () => sha256.slice(100, 132);

it.each<[string, (db: TestDatabase['db']) => Promise<unknown>]>([
  ['the ledger looks a run up', (db) => findStep(db, 'train', 'filled-17')],
  ['the reconciler asks which runs are there', (db) => knownSteps(db, ['filled-17', 'filled-18'])],
  [
    'the reconciler reads a page of runs',
    (db) => pagesOfSucceeded(db, { graceMs: 0 })[Symbol.asyncIterator]().next(),
  ],
  [
    'the sweep takes over what nobody works on',
    (db) => takeOverSteps(db, { ...lease, limit: 5, except: [] }),
  ],
  ['the sweep gives up what crashes', (db) => giveUpSteps(db, 'train', problem)],
  [
    'the outbox looks for what is due',
    (db) => claimNotices(db, { function: 'train', limit: 10, leaseMs: 1000 }),
  ],
  ['preprocess asks what is missing', (db) => missingFeatures(db, model, extractor.id, wanted())],
  ['training reads a split', (db) => readDataset(db, model, version, 'test')],
  ['training reads features', (db) => readFeatures(db, { model, version, split: 'test' }, extractor)],
  [
    'groups of photos are written',
    (db) => recordGroups(db, model, new Map(wanted().map((digest) => [digest, 'g']))),
  ],
])('%s without reading a whole table', async (_name, run) => {
  expect(await sequentialScans(run)).toEqual([]);
});

it('a small ingestion among many photos is a matter of its own photos', async () => {
  await database.db`
    insert into ingestion_images (ingestion, source, model, sha256, label)
    select 'small', source, model, sha256, label from images where model = ${model} limit 30`;
  await database.db.unsafe('analyze ingestion_images');
  expect(await sequentialScans((db) => listCandidates(db, 'small'))).toEqual([]);
});

it('would see a table that is read as a whole', async () => {
  expect(
    await sequentialScans((db) => db`select count(*) from steps where attempt = ${1}`.execute()),
  ).toEqual(['steps']);
});
