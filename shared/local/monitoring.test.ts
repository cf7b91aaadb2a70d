import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeBinary } from '../function/cloudevents.ts';
import { countPredictions } from '../stores/predictions.ts';
import { testDatabase } from '../stores/testing.ts';
import { type Platform, startPlatform } from './platform.ts';

/** The built functions, real events, the manifests that ship. */
let folder: string;
let platform: Platform;
let drop: () => Promise<void>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-monitoring-'));
  const database = await testDatabase();
  drop = database.drop;
  const env = { DATABASE_URL: database.url, PREDICTION_LOG_FLUSH_MS: '3600000' };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
});
afterAll(async () => {
  await platform?.stop();
  await drop?.();
  await rm(folder, { recursive: true, force: true });
});

interface Letter {
  id: string;
  destination: string;
  cause: string;
  occurrences: number;
  event: { id: string };
}
const office = () => `${platform.gatewayUrl}/function/monitor/dead-letters`;
const letters = async (query = '') =>
  ((await (await fetch(`${office()}${query}`)).json()) as { deadLetters: Letter[] }).deadLetters;

describe('monitor on one machine', () => {
  test('a poison event ends in the dead-letter store with its cause, and can be sent again', async () => {
    const poison = { specversion: '1.0', id: 'poison', source: '/test', data: { model: 7 } };
    const { headers, body } = encodeBinary({ ...poison, type: 'dev.dandelion.retrain.requested.v1' });
    const accepted = await fetch(`${platform.gatewayUrl}/broker`, {
      ...{ method: 'POST', headers, body: new Uint8Array(body ?? []) },
    });
    expect(accepted.status).toBe(202);
    await platform.broker.idle();
    const [letter] = await letters();
    expect(letter).toMatchObject({
      destination: '/function/ingest',
      event: { id: 'poison' },
      occurrences: 1,
    });
    expect(letter?.cause).toMatch(/^bad-data: .*model/);
    expect((await fetch(`${office()}/${letter?.id}/replay`, { method: 'POST' })).status).toBe(200);
    await platform.broker.idle();
    expect(await letters()).toMatchObject([{ id: letter?.id, occurrences: 2 }]);
  });

  test('the reconciler finds the manifests in its bundle, and the broker', async () => {
    const answer = await fetch(`${platform.gatewayUrl}/function/monitor/reconcile`, { method: 'POST' });
    expect([answer.status, await answer.json()]).toEqual([200, { sent: [] }]);
  });

  test('what predict was asked is in PostgreSQL, told by the process that stopped, after the next start', async () => {
    const answer = await fetch(`${platform.gatewayUrl}/function/predict/`, {
      ...{ method: 'POST', body: 'not a photo', headers: { 'content-type': 'image/jpeg' } },
    });
    expect(answer.status).toBeGreaterThanOrEqual(400);
    const env = { DATABASE_URL: platform.databaseUrl };
    await platform.stop();
    platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
    await platform.broker.idle();
    const [counts] = await countPredictions(platform.database, { model: 'dandelion', since: new Date(0) });
    expect((counts?.refused ?? 0) + (counts?.failed ?? 0)).toBe(1);
  });
});
