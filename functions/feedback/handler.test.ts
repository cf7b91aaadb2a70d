import { createHash, randomUUID } from 'node:crypto';
import postgres from 'postgres';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../shared/events.ts';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { savePredictions } from '../../shared/stores/predictions.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import { wilsonInterval } from '../../shared/vision/metrics.ts';
import { clientHash } from './clients.ts';
import * as feedback from './handler.ts';

const version = 'v0000000001';
const salt = 'a salt of sixteen characters';
const model = { name: 'plants', version };

let stores: TestStores;
let sink: FixtureSink;
let server: Awaited<ReturnType<typeof startFunction>>;
let photo: Buffer;

beforeAll(async () => {
  stores = await testStores();
  sink = await startSink();
  const classes = { dandelion: 24, grass: 24 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  await storeDrawnModel(stores, { name: 'plants', version, dataset });
  photo = await drawPhoto('grass', 500);
  server = await start();
});
afterAll(async () => {
  await server?.close();
  await sink?.close();
  await stores?.drop();
});
beforeEach(async () => {
  await stores.db`delete from feedback`;
  for (const key of await keys('feedback/')) await stores.objects.delete(key);
});

function start(env: Record<string, string> = {}) {
  const settings = { MODEL_NAME: 'plants', PREDICTION_LOG_SALT: salt, FEEDBACK_PER_MINUTE: '1000' };
  return startFunction(feedback, {
    name: 'feedback',
    env: { ...stores.env, ...settings, K_SINK: sink.url, ...env },
  });
}

const said = (fields: object = {}) => ({
  ...{ prediction: randomUUID(), model, predicted: 'dandelion', correct: false, label: 'grass' },
  ...fields,
});

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into by path, and expectations say what they must be
  body: any;
}
async function call(path: string, init: RequestInit = {}, url = server.url): Promise<Answer> {
  const response = await fetch(`${url}${path}`, init);
  const text = await response.text();
  return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : text };
}

const give = (body: unknown, client = '203.0.113.7', url = server.url) =>
  call(
    '/',
    {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-forwarded-for': client },
      body: JSON.stringify(body),
    },
    url,
  );

function giveWithPhoto(body: object, bytes: Uint8Array = photo, client?: string) {
  const form = new FormData();
  form.append('feedback', JSON.stringify(body));
  form.append('photo', new File([new Uint8Array(bytes)], 'photo.jpg'));
  return call('/', {
    method: 'POST',
    headers: client === undefined ? {} : { 'x-forwarded-for': client },
    body: form,
  });
}

/** Until the statement that saves feedback waits for what somebody else holds. */
async function savingWaits(): Promise<void> {
  const waits = async () => {
    const [row] = await stores.db<{ waiting: boolean }[]>`
      select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%into feedback%' and pid <> pg_backend_pid()) as waiting`;
    return row?.waiting;
  };
  await expect.poll(waits, { timeout: 30_000 }).toBe(true);
}

/** Holds the database's part of a client's feedback on an answer up, until it is let go. */
async function holdUp(prediction: string, client: string) {
  const holder = postgres(stores.url, { max: 1, onnotice: () => {} });
  const id = digestOf('feedback', prediction, clientHash(client, salt)).slice(0, 32);
  await holder.unsafe('begin');
  await holder`
    insert into feedback (id, prediction, client, model, version, predicted)
    values (${id}, ${prediction}, '', 'plants', ${version}, 'dandelion')`;
  return {
    async letGo() {
      await holder.unsafe('rollback');
      await holder.end();
    },
  };
}

const review = (id: string, verdict: 'accept' | 'reject', body?: object) =>
  call(`/reviews/${id}/${verdict}`, {
    method: 'POST',
    ...(body === undefined
      ? {}
      : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
const waiting = async () => (await call('/reviews')).body;
async function keys(prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of stores.objects.list(prefix)) found.push(key);
  return found;
}
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe('giving feedback', () => {
  it('stores it for a review and tells of it, without the photo unless there is consent', async () => {
    const body = said();
    const { status, body: answer } = await give(body);
    expect([status, answer.status]).toEqual([202, 'waiting']);
    expect(await waiting()).toMatchObject({
      total: 1,
      feedback: [
        { id: answer.id, prediction: body.prediction, predicted: 'dandelion', label: 'grass', photo: null },
      ],
    });
    await expect.poll(() => sink.events.map(({ type }) => type)).toContain('dev.dandelion.feedback.given.v1');
    expect(sink.events.at(-1)?.data).toMatchObject({ feedback: answer.id, label: 'grass', photo: null });
  });

  it('keeps a photo that its owner agreed to, apart from those of datasets', async () => {
    const { status, body } = await giveWithPhoto(said({ consent: true }));
    expect(status).toBe(202);
    expect(await keys('feedback/')).toEqual([`feedback/${body.id}/${sha256(photo)}`]);
    expect(await keys(`images/${sha256(photo)}`)).toEqual([]);
    const response = await fetch(`${server.url}/reviews/${body.id}/photo`);
    expect(Buffer.from(await response.arrayBuffer()).equals(photo)).toBe(true);
  });

  it.each([
    ['no JSON', 400, 'bad-request', '{"prediction":'],
    ['without a prediction', 422, 'bad-data', { ...said(), prediction: undefined }],
    ['with a field that means nothing', 422, 'bad-data', said({ labell: 'grass' })],
    [
      'of a version that is not there',
      422,
      'version-unknown',
      said({ model: { ...model, version: 'v00000000ff' } }),
    ],
    ['of a model that is not there', 422, 'version-unknown', said({ model: { name: 'birds', version } })],
    ['with a label that the model has not', 422, 'label-unknown', said({ label: 'cat' })],
    ['with the word for none of the classes as label', 422, 'bad-data', said({ label: 'unknown' })],
    ['that consents to a photo that is not there', 422, 'bad-data', said({ consent: true })],
  ])('refuses feedback %s', async (_what, status, code, body) => {
    const headers = { 'content-type': 'application/json' };
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const answer = await call('/', { method: 'POST', headers, body: text });
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect((await waiting()).total).toBe(0);
  });

  it('refuses a photo without consent, and one that cannot be read, and keeps neither', async () => {
    await stores.db`delete from feedback`;
    for (const key of await keys('feedback/')) await stores.objects.delete(key);
    expect(await giveWithPhoto(said())).toMatchObject({ status: 422, body: { code: 'consent-missing' } });
    const cut = photo.subarray(0, photo.length / 2);
    expect(await giveWithPhoto(said({ consent: true }), cut)).toMatchObject({
      status: 422,
      body: { code: 'truncated-image' },
    });
    expect(await giveWithPhoto(said({ consent: true }), Buffer.from('text'))).toMatchObject({
      body: { code: 'not-an-image' },
    });
    expect(await keys('feedback/')).toEqual([]);
  });

  it('takes the last word of a client on an answer, and deletes the photo that was taken back', async () => {
    const body = said();
    const first = await giveWithPhoto({ ...body, consent: true });
    const last = await call('/', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, label: null }),
    });
    expect(last.body.id).toBe(first.body.id);
    expect(await waiting()).toMatchObject({ total: 1, feedback: [{ label: null, photo: null }] });
    expect(await keys('feedback/')).toEqual([]);
    const other = await give(body, '203.0.113.8');
    expect(other.body.id).not.toBe(first.body.id);
  });

  it('stands at its first review: a later word changes nothing', async () => {
    const body = said();
    const { body: given } = await give(body);
    await review(given.id, 'reject');
    const again = await give({ ...body, label: null });
    expect(again).toMatchObject({ status: 200, body: { id: given.id, status: 'rejected' } });
    expect((await waiting()).total).toBe(0);
  });
});

describe('a flood', () => {
  it('is slowed down for each client, in a bounded memory', async () => {
    const slow = await start({ FEEDBACK_PER_MINUTE: '5' });
    try {
      const flood = await Promise.all(
        Array.from({ length: 50 }, () => give(said(), '198.51.100.1', slow.url)),
      );
      expect(flood.filter(({ status }) => status === 202).length).toBeLessThanOrEqual(6);
      expect(flood.filter(({ status }) => status === 429).length).toBeGreaterThanOrEqual(44);
      expect((await give(said(), '198.51.100.2', slow.url)).status).toBe(202);
    } finally {
      await slow.close();
    }
  });

  it('of many clients fills the review and no more, and trains nothing', async () => {
    const small = await start({ FEEDBACK_MOST_WAITING: '20' });
    try {
      const flood = [];
      for (let client = 0; client < 40; client++)
        flood.push(await give(said(), `198.51.100.${client}`, small.url));
      expect(flood.map(({ status }) => status)).toEqual([...Array(20).fill(202), ...Array(20).fill(503)]);
      expect(flood.at(-1)?.body.code).toBe('feedback-full');
      expect((await waiting()).total).toBe(20);
      const learnt = await stores.db`select from images where label_source = 'feedback'`;
      expect(learnt).toHaveLength(0);
      expect((await call('/accuracy')).body.versions).toEqual([]);
    } finally {
      await small.close();
    }
  });
});

describe('a review', () => {
  it('that accepts puts the photo among those of the model, under the label of the reviewer', async () => {
    const { body } = await giveWithPhoto(said({ consent: true }));
    const answer = await review(body.id, 'accept');
    expect(answer).toMatchObject({ status: 200, body: { status: 'accepted', label: 'grass' } });
    const [image] = await stores.db`
      select label, label_source, width, source from images where sha256 = ${sha256(photo)}`;
    expect(image).toMatchObject({ label: 'grass', label_source: 'feedback', source: `feedback:${body.id}` });
    expect(await keys(`images/${sha256(photo)}`)).toHaveLength(1);
    expect(await keys('feedback/')).toEqual([]);
  });

  it('that rejects deletes the photo', async () => {
    const other = await drawPhoto('grass', 501);
    const { body } = await giveWithPhoto(said({ consent: true }), other);
    expect(await review(body.id, 'reject')).toMatchObject({ body: { status: 'rejected', photo: null } });
    expect([...(await keys('feedback/')), ...(await keys(`images/${sha256(other)}`))]).toEqual([]);
  });

  it('that rejects leaves the same photo to others, one that just arrives too', async () => {
    const same = await drawPhoto('grass', 502);
    const { body: first } = await giveWithPhoto(said({ consent: true }), same);
    const body = said({ consent: true });
    const held = await holdUp(body.prediction, '203.0.113.8');
    const arriving = giveWithPhoto(body, same, '203.0.113.8');
    try {
      // Its photo is stored, its feedback not yet.
      await savingWaits();
      expect((await review(first.id, 'reject')).body.status).toBe('rejected');
    } finally {
      await held.letGo();
    }
    const { body: second } = await arriving;
    const response = await fetch(`${server.url}/reviews/${second.id}/photo`);
    expect(sha256(Buffer.from(await response.arrayBuffer()))).toBe(sha256(same));
    expect(await review(second.id, 'accept')).toMatchObject({ status: 200, body: { status: 'accepted' } });
    expect(await keys(`images/${sha256(same)}`)).toHaveLength(1);
    expect(await keys('feedback/')).toEqual([]);
  });

  it('that rejects while its client says more stands, and keeps no photo', async () => {
    const body = said({ consent: true });
    const { body: given } = await giveWithPhoto(body, await drawPhoto('grass', 503));
    const holder = postgres(stores.url, { max: 1, onnotice: () => {} });
    await holder.unsafe('begin');
    await holder`
      update feedback set status = 'rejected', reviewed_at = now(), sha256 = null, photo = null where id = ${given.id}`;
    const again = giveWithPhoto(body, await drawPhoto('grass', 504));
    await savingWaits();
    await holder.unsafe('commit');
    await holder.end();
    expect(await again).toMatchObject({ status: 200, body: { id: given.id, status: 'rejected' } });
    expect(await keys('feedback/')).toHaveLength(1);
  });

  it('finds a photo that an earlier release kept under its digest alone', async () => {
    const old = await drawPhoto('grass', 505);
    const { body: given } = await giveWithPhoto(said({ consent: true }), old);
    for (const key of await keys('feedback/')) await stores.objects.delete(key);
    await stores.objects.put(`feedback/${sha256(old)}`, old);
    expect((await fetch(`${server.url}/reviews/${given.id}/photo`)).status).toBe(200);
    expect((await review(given.id, 'accept')).status).toBe(200);
    expect(await keys('feedback/')).toEqual([]);
  });

  it('is about what was looked at, once', async () => {
    const body = said();
    const { body: given } = await give(body);
    const [seen] = (await waiting()).feedback;
    await give({ ...body, label: null });
    const stale = await review(given.id, 'accept', { givenAt: seen.givenAt });
    expect(stale).toMatchObject({ status: 422, body: { code: 'feedback-changed' } });
    expect((await review(given.id, 'accept', { label: 'cat' })).body.code).toBe('label-unknown');
    expect(await review(given.id, 'accept', { label: 'unknown' })).toMatchObject({
      status: 422,
      body: { code: 'bad-data', detail: expect.stringContaining('null') },
    });
    expect((await review(given.id, 'accept', { label: 'grass' })).body.label).toBe('grass');
    expect((await review(given.id, 'reject')).body.code).toBe('feedback-settled');
    expect((await review('0'.repeat(32), 'accept')).status).toBe(410);
  });

  it('wants the token where there is one, and is closed to others where there is none', async () => {
    const token = 'token-of-sixteen-characters';
    const guarded = await start({ DANDELION_TOKEN: token });
    const wide = await start({ HOST: '0.0.0.0' });
    try {
      expect((await call('/reviews', {}, guarded.url)).status).toBe(401);
      expect((await give(said(), '203.0.113.9', guarded.url)).status).toBe(202);
      const headers = { authorization: `Bearer ${token}` };
      expect((await call('/reviews', { headers }, guarded.url)).status).toBe(200);
      expect(await call('/reviews', {}, wide.url)).toMatchObject({
        status: 403,
        body: { code: 'forbidden' },
      });
      const foreign = { method: 'POST', headers: { 'sec-fetch-site': 'cross-site' } };
      expect((await call(`/reviews/${'0'.repeat(32)}/accept`, foreign)).status).toBe(403);
    } finally {
      await guarded.close();
      await wide.close();
    }
  });
});

describe('live accuracy', () => {
  it('counts reviewed feedback alone, with its interval, here and in the metrics', async () => {
    for (let given = 0; given < 12; given++) {
      const right = given < 8;
      const { body } = await give(right ? { ...said(), correct: true, label: undefined } : said());
      if (given < 10) await review(body.id, 'accept');
    }
    const { body } = await call('/accuracy');
    expect(body).toEqual({
      model: 'plants',
      versions: [{ version, reviewed: 10, correct: 8, accuracy: 0.8, interval: wilsonInterval(8, 10) }],
    });
    const { body: metrics } = await call('/metrics');
    expect(metrics).toContain(
      `dandelion_live_accuracy{model="plants",version="${version}",bound="share",function="feedback"} 0.8`,
    );
    expect(metrics).toContain('dandelion_feedback{model="plants",status="waiting",function="feedback"} 2');
  });

  it('believes the prediction log rather than the sender', async () => {
    const prediction = randomUUID();
    const logged = { name: 'plants', version: 'v0000000002' };
    await savePredictions(stores.db, [
      {
        ...{
          id: prediction,
          time: new Date().toISOString(),
          model: logged,
          revision: null,
          outcome: 'answered',
        },
        ...{ code: null, label: 'grass', scores: { grass: 1 }, latencyMs: 5, weight: 1, input: {} },
      },
    ]);
    const { body } = await give(said({ prediction }));
    const [seen] = (await waiting()).feedback;
    expect(seen.logged).toEqual({ version: 'v0000000002', label: 'grass', score: 1 });
    await review(body.id, 'accept');
    expect((await call('/accuracy')).body.versions).toMatchObject([
      { version: 'v0000000002', reviewed: 1, correct: 1 },
    ]);
  });
});
