import postgres from 'postgres';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { advanceDeployment, beginDeployment, readDeployment, releaseDeployment } from './deployments.ts';
import { type TestDatabase, testDatabase } from './testing.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());

const wanted = (id: string) => ({
  id,
  model: 'plants',
  version: 'v1',
  kind: 'deploy' as const,
  policy: null,
});

it('lets a deployment that was held up until its lease had passed on change nothing of the next one', async () => {
  const { db } = database;
  const other = postgres(database.url);
  let slow: Promise<unknown> = Promise.resolve();
  await other.begin(async (blocking) => {
    // Reads go on, so that the first one gets the lease, and waits with what it writes under it.
    await blocking`lock table deployments in exclusive mode`;
    slow = beginDeployment(db, wanted('slow')).catch((error: unknown) => error);
    await expect
      .poll(async () => (await db`select deployment from deployment_leases`)[0]?.deployment)
      .toBe('slow');
    await blocking`update deployment_leases set deployment = 'next', token = token + 1`;
    await blocking`
      insert into deployments (id, model, version, kind, phase, policy)
      values ('next', 'plants', 'v2', 'deploy', 'canary', 'null')`;
  });
  await other.end();
  expect(await slow).toMatchObject({ code: 'lease-lost' });
  expect(await readDeployment(db, 'next')).toMatchObject({ phase: 'canary' });
  expect(await readDeployment(db, 'slow')).toBeUndefined();
});

it('lets a deployment wait for one that moves traffic, and a rollback take its place', async () => {
  const { db } = database;
  const { deployment, lease } = await beginDeployment(db, { ...wanted('first'), model: 'busy' });
  await advanceDeployment(db, lease, deployment, { phase: 'canary' });
  await releaseDeployment(db, lease);
  const second = beginDeployment(db, { ...wanted('second'), model: 'busy' });
  await expect(second).rejects.toMatchObject({
    code: 'deploy-busy',
    message: expect.stringContaining('v1 (phase canary)'),
  });
  await beginDeployment(db, { ...wanted('back'), model: 'busy', kind: 'rollback' });
  expect(await readDeployment(db, 'first')).toMatchObject({ phase: 'superseded' });
  const late = advanceDeployment(db, lease, deployment, { phase: 'champion' });
  await expect(late).rejects.toMatchObject({ code: 'lease-lost' });
});
