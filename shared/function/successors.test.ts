import postgres from 'postgres';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Event } from '../events.ts';
import { runIdOf } from '../events.ts';
import { saveDeadLetter } from '../stores/dead-letters.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { resendLostResults } from './successors.ts';
import { parseTriggers } from './triggers.ts';

const RUNS = 3000;
const triggers = parseTriggers([
  {
    name: 'triggers.yaml',
    text: `
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: { name: evaluate }
spec:
  broker: dandelion
  filters: [{ exact: { type: dev.dandelion.model.trained.v1 } }]
  subscriber: { ref: { apiVersion: serving.knative.dev/v1, kind: Service, name: evaluate } }`,
  },
]);
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());

const event = (id: string, type: string): Event => ({
  ...{ specversion: '1.0', id, source: '/test', type: `dev.dandelion.${type}.v1`, data: {} },
  ...{ knativearrivaltime: '2026-01-01T00:00:00Z' },
});

interface Row {
  function: string;
  input: Event;
  result: Event | null;
}

async function addSucceeded(rows: readonly Row[]): Promise<void> {
  const { db } = database;
  await db`
    insert into steps (id, function, source, event_id, event, event_digest, status, attempt, final, result, finished_at)
    select id, function, source, event_id, event::json, '', 'succeeded', 1, true, nullif(result, 'null')::json, now()
    from unnest(
      ${rows.map((row) => runIdOf(row.function, row.input.source, row.input.id))}::text[],
      ${rows.map((row) => row.function)}::text[], ${rows.map((row) => row.input.source)}::text[],
      ${rows.map((row) => row.input.id)}::text[], ${rows.map((row) => JSON.stringify(row.input))}::text[],
      ${rows.map((row) => JSON.stringify(row.result))}::text[])
      as row (id, function, source, event_id, event, result)`;
}

it('looks through the runs of a month with a few queries, whatever their number', async () => {
  const results = Array.from({ length: RUNS }, (_, n) => event(`result-${n}`, 'model.trained'));
  await addSucceeded(
    results.map((result, n) => ({ function: 'train', input: event(`in-${n}`, 'features.stored'), result })),
  );
  const lost = [results[7], results[1234], results[2999]].filter((result) => result !== undefined);
  const dead = [results[8], results[2998]].filter((result) => result !== undefined);
  const arrived = results.filter((result) => !lost.includes(result) && !dead.includes(result));
  await addSucceeded(arrived.map((input) => ({ function: 'evaluate', input, result: null })));
  for (const each of dead) {
    const burial = { destination: '/evaluate', status: 400, cause: 'No.' };
    await saveDeadLetter(database.db, { ...burial, event: each });
  }
  let queries = 0;
  const counted = postgres(database.url, {
    ...{ types: database.db.options.types as Record<string, postgres.PostgresType>, fetch_types: false },
    debug: () => {
      queries += 1;
    },
  });
  try {
    const send = () => Promise.resolve(true);
    const sent = await resendLostResults(counted, triggers, send, { graceMs: 0 });
    expect(sent.map(({ id }) => id).sort()).toEqual(lost.map(({ id }) => id).sort());
    expect(queries).toBeGreaterThan(0);
    expect(queries).toBeLessThan(RUNS / 100);
  } finally {
    await counted.end();
  }
});
