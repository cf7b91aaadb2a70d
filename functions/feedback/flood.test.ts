import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFunction } from '../../shared/function/testing.ts';
import { measureLiveAccuracy } from '../../shared/stores/feedback.ts';
import { listReviewedPhotos } from '../../shared/stores/images.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import * as feedback from './handler.ts';

const model = { name: 'plants', version: 'v0000000001' };
const MOST_WAITING = 60;
const MOST_OF_CLIENT = 10;
const HONEST = '203.0.113.7';

let stores: TestStores;
let server: Awaited<ReturnType<typeof startFunction>>;
/** What learning and watching made of feedback before the flood. */
let before: Awaited<ReturnType<typeof consequences>>;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model: model.name, ingestion: 'i1', classes });
  await storeDrawnModel(stores, { ...model, dataset });
  server = await startFunction(feedback, {
    name: 'feedback',
    env: {
      ...{ ...stores.env, MODEL_NAME: model.name, PREDICTION_LOG_SALT: 'a salt of sixteen characters' },
      // So many that the limit of a minute does not hide the others.
      FEEDBACK_PER_MINUTE: '100000',
      ...{ FEEDBACK_MOST_WAITING: `${MOST_WAITING}`, FEEDBACK_MOST_OF_CLIENT: `${MOST_OF_CLIENT}` },
    },
  });
  for (let said = 0; said < 5; said++) {
    const { id } = await give(HONEST, { label: 'grass', photo: await drawPhoto('grass', 900 + said) });
    expect(await review(id, 'accept')).toBe(200);
  }
  before = await consequences();
});
afterAll(async () => {
  await server?.close();
  await stores?.drop();
});

interface Said {
  prediction?: string;
  label?: string | null;
  photo?: Buffer;
}

/** Says of an answer "dandelion" that it is something else. */
async function give(client: string, { prediction = randomUUID(), label = null, photo }: Said = {}) {
  const said = { prediction, model, predicted: 'dandelion', correct: false, label };
  const form = new FormData();
  form.append('feedback', JSON.stringify({ ...said, consent: photo !== undefined }));
  if (photo !== undefined) form.append('photo', new File([new Uint8Array(photo)], 'photo.jpg'));
  const response = await fetch(server.url, {
    ...{ method: 'POST', body: form, headers: { 'x-forwarded-for': client } },
  });
  const body = (await response.json()) as { id: string; code?: string };
  return { ...body, status: response.status, retryAfter: response.headers.get('retry-after') };
}

async function review(id: string, verdict: 'accept' | 'reject'): Promise<number> {
  const response = await fetch(`${server.url}/reviews/${id}/${verdict}`, { method: 'POST' });
  await response.arrayBuffer();
  return response.status;
}

async function waiting(): Promise<{ total: number; feedback: { id: string; client: string }[] }> {
  const response = await fetch(`${server.url}/reviews?limit=1000`);
  return (await response.json()) as Awaited<ReturnType<typeof waiting>>;
}

async function waitingPhotos(): Promise<number> {
  let photos = 0;
  for await (const _ of stores.objects.list('feedback/')) photos += 1;
  return photos;
}

/** All that feedback has a say in: live accuracy, by which drift of performance is told, and what the next dataset takes. */
async function consequences() {
  const [images] = await stores.db`select count(*)::int as count from images`;
  return {
    accuracy: await measureLiveAccuracy(stores.db, model.name),
    reviewed: await listReviewedPhotos(stores.db, model.name),
    images: images?.count,
  };
}

const statuses = (answers: { status: number }[], status: number) =>
  answers.filter((answer) => answer.status === status).length;

describe('a flood of false feedback', () => {
  it('of one client fills its own share of the review, and leaves room for others', async () => {
    const photo = await drawPhoto('dandelion', 1);
    const flood = [];
    for (let said = 0; said < 100; said++) flood.push(await give('198.51.100.1', { label: 'grass', photo }));
    expect([statuses(flood, 202), statuses(flood, 503)]).toEqual([MOST_OF_CLIENT, 100 - MOST_OF_CLIENT]);
    expect(flood.at(-1)).toMatchObject({ code: 'feedback-full', retryAfter: '3600' });
    expect((await give(HONEST, { label: 'grass' })).status).toBe(202);
    expect(await consequences()).toEqual(before);
  });

  it('of one client that forges many addresses is still that of one', async () => {
    const flood = [];
    for (let said = 0; said < 3 * MOST_OF_CLIENT; said++) {
      flood.push(await give(`192.0.2.${said}, 198.51.100.3`, { label: 'grass' }));
    }
    expect([statuses(flood, 202), statuses(flood, 503)]).toEqual([MOST_OF_CLIENT, 2 * MOST_OF_CLIENT]);
    for (const { id } of flood.slice(0, MOST_OF_CLIENT)) expect(await review(id, 'reject')).toBe(200);
  });

  it('on one answer again and again is one feedback', async () => {
    const prediction = randomUUID();
    const total = (await waiting()).total;
    for (let said = 0; said < 50; said++) {
      const label = said % 2 === 0 ? 'grass' : null;
      expect((await give('198.51.100.2', { prediction, label })).status).toBe(202);
    }
    expect((await waiting()).total).toBe(total + 1);
  });

  it('of many clients at once fills the review and no more; their photos are no more either', async () => {
    const photos = await Promise.all(Array.from({ length: 20 }, (_, seed) => drawPhoto('dandelion', seed)));
    const flood = await Promise.all(
      Array.from({ length: 200 }, (_, said) =>
        give(`198.51.101.${said % 100}`, {
          label: 'grass',
          photo: photos[said % photos.length] ?? Buffer.of(),
        }),
      ),
    );
    expect(statuses(flood, 202) + statuses(flood, 503)).toBe(flood.length);
    expect(statuses(flood, 503)).toBeGreaterThan(0);
    // Of those that come at the same moment a few more may find room.
    const { total } = await waiting();
    expect(total).toBeGreaterThanOrEqual(MOST_WAITING);
    expect(total).toBeLessThan(MOST_WAITING + 40);
    // Each has its own; those that found no room left none.
    expect(await waitingPhotos()).toBeLessThanOrEqual(total);
    expect(await consequences()).toEqual(before);
    // What is stated: until the review has room again, everybody waits.
    expect(await give(HONEST, { label: 'grass' })).toMatchObject({ status: 503, code: 'feedback-full' });
  });

  it('that is rejected leaves nothing behind, and honest feedback comes through and counts', async () => {
    for (const { id } of (await waiting()).feedback) expect(await review(id, 'reject')).toBe(200);
    expect([(await waiting()).total, await waitingPhotos()]).toEqual([0, 0]);
    expect(await consequences()).toEqual(before);
    const honest = await give(HONEST, { label: 'grass', photo: await drawPhoto('grass', 999) });
    expect(honest.status).toBe(202);
    expect(await review(honest.id, 'accept')).toBe(200);
    const after = await consequences();
    expect(after.accuracy[0]?.reviewed).toBe((before.accuracy[0]?.reviewed ?? 0) + 1);
    expect(after.reviewed).toHaveLength(before.reviewed.length + 1);
  });
});
