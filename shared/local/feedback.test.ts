import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { readChampion, readModel } from '../stores/models.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { drawnClasses, drawPhoto } from '../vision/drawn.ts';
import { pipelineFunctions } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import { drawFolder, quickPipelineEnv, requestFor, waitForPipeline } from './testing-pipelines.ts';

const MODEL = 'looked-over';
const patienceMs = 240_000;

let folder: string;
let database: TestDatabase;
let platform: Platform;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-feedback-'));
  const classes = Object.fromEntries(drawnClasses.map((label) => [label, 16]));
  await drawFolder(join(folder, 'photos'), classes, 1);
  database = await testDatabase();
  const env = { ...(await quickPipelineEnv(folder)), DATABASE_URL: database.url, MODEL_NAME: MODEL };
  platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
});
afterAll(async () => {
  await platform?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

const answerSchema = z.object({
  id: z.string(),
  label: z.string(),
  model: z.object({ name: z.string(), version: z.string() }),
});

async function train(id: string): Promise<void> {
  const request = { ...requestFor(MODEL, join(folder, 'photos')), id };
  await platform.broker.publish(request);
  const runs = await waitForPipeline(database.db, request, patienceMs);
  expect(pipelineFunctions.map((name) => [name, runs[name]?.status])).toEqual(
    pipelineFunctions.map((name) => [name, 'succeeded']),
  );
}

async function ask(url: string, init: RequestInit = {}): Promise<unknown> {
  const response = await fetch(`${platform.gatewayUrl}/function/${url}`, init);
  const body: unknown = await response.json();
  expect(response.ok, JSON.stringify(body)).toBe(true);
  return body;
}

function classify(photo: Uint8Array<ArrayBuffer>) {
  const headers = { 'content-type': 'image/jpeg' };
  return ask('predict/', { method: 'POST', headers, body: photo }).then((body) => answerSchema.parse(body));
}

async function championVersion(): Promise<string | undefined> {
  return (await readChampion(platform.objects, MODEL))?.champion.version;
}

test('a photo that someone put right is learnt from once a person has looked at it, and counts for the version that answered', {
  timeout: 2 * patienceMs,
}, async () => {
  await train('first');
  const first = await championVersion();
  expect((await readModel(platform.objects, MODEL, first ?? '')).classes).toEqual([...drawnClasses].sort());

  const photo = new Uint8Array(await drawPhoto('tulip', 4711));
  const sha256 = createHash('sha256').update(photo).digest('hex');
  const { id, label: predicted, model } = await classify(photo);
  expect(model.version).toBe(first);
  const correction = predicted === 'tulip' ? { correct: true } : { correct: false, label: 'tulip' };
  const form = new FormData();
  form.set('feedback', JSON.stringify({ prediction: id, model, predicted, ...correction, consent: true }));
  form.set('photo', new Blob([photo], { type: 'image/jpeg' }), 'tulip.jpg');
  const given = z.object({ id: z.string(), status: z.literal('waiting') });
  const feedback = given.parse(await ask('feedback/', { method: 'POST', body: form }));

  const joined = () => database.db`
    select d.label, i.label_source as source from dataset_images d
    join images i using (model, sha256) where d.model = ${MODEL} and sha256 = ${sha256}`;
  await train('before the review');
  expect(await joined()).toEqual([]);

  await ask(`feedback/reviews/${feedback.id}/accept`, { method: 'POST' });
  await train('after the review');
  expect(await joined()).toMatchObject([{ label: 'tulip', source: 'feedback' }]);
  expect(await ask('feedback/accuracy')).toMatchObject({
    versions: [{ version: first, reviewed: 1, correct: predicted === 'tulip' ? 1 : 0 }],
  });
  const next = await championVersion();
  expect(next).not.toBe(first);
  // predict sees the new champion within its next look at the store.
  const served = async () => (await classify(photo)).model.version;
  await expect.poll(served, { timeout: 60_000, interval: 200 }).toBe(next);
});
