/**
 * The contract of a durable step over HTTP, sentence by sentence: what Airflow, a broker and a person with curl may
 * rely on. How it is kept under crashes and races is tested in durable.test.ts and serve.test.ts.
 */
import { createServer } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Event, resultIdOf, runIdOf } from '../events.ts';
import { claimStep, findStep, purgeSteps, releaseLeases } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { encodeBinary, encodeStructured } from './cloudevents.ts';
import { type StepPlan, step, stepEvent } from './fixtures/functions.ts';
import { readRuntimeSettings } from './settings.ts';
import { startFunction } from './testing.ts';

let database: TestDatabase;
let url: string;
const open: { close(): Promise<void> }[] = [];
const shared: { close(): Promise<void> }[] = [];

const quick = { LEASE_MS: '1500', HEARTBEAT_MS: '200', SWEEP_MS: '100000' };
const startPod = (env: Record<string, string> = {}) =>
  startFunction(step, { name: 'step', env: { DATABASE_URL: database.url, ...quick, ...env } });

beforeAll(async () => {
  database = await testDatabase();
  const pod = await startPod();
  url = pod.url;
  shared.push(pod);
});
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});
afterAll(async () => {
  for (const each of shared) await each.close();
  await database.drop();
});

let events = 0;
/** An event of its own for each row of a table. */
function fresh(plan: StepPlan = {}): Event {
  events += 1;
  return stepEvent(`contract-${events}`, plan);
}

const idOf = (event: Event) => runIdOf('step', event.source, event.id);
const pathOf = (event: Event, suffix = '') => `${url}/runs/${idOf(event)}${suffix}`;
const respondAsync = { prefer: 'respond-async' };

function post(event: Event, headers: Record<string, string> = {}, encode = encodeBinary): Promise<Response> {
  const { headers: own, body } = encode(event);
  return fetch(url, { method: 'POST', headers: { ...own, ...headers }, body: new Uint8Array(body ?? []) });
}

interface Run {
  status: string;
  attempt: number;
  [member: string]: unknown;
}
const look = async (event: Event, suffix = '') => (await (await fetch(pathOf(event, suffix))).json()) as Run;
const retry = (event: Event) => fetch(pathOf(event, '/retry'), { method: 'POST' });

/** A run that was worked on by a process that died. */
async function abandoned(): Promise<Event> {
  const event = fresh();
  const owner = `dead-${event.id}`;
  await claimStep(database.db, { function: 'step', owner, leaseMs: 60_000, event });
  await releaseLeases(database.db, owner);
  return event;
}

describe('POST / with a CloudEvent works and answers', () => {
  it.each([
    ['binary', encodeBinary],
    ['structured', encodeStructured],
  ])('200 with the result event, in %s mode as it was asked', async (mode, encode) => {
    const event = fresh();
    const response = await post(event, {}, encode);
    const id = resultIdOf('step', event.source, event.id);
    expect(response.status).toBe(200);
    const given = mode === 'binary' ? response.headers.get('ce-id') : ((await response.json()) as Event).id;
    expect(given).toBe(id);
  });

  it.each<[string, Record<string, string>]>([
    ['Prefer: respond-async', { prefer: 'respond-async' }],
    [
      'it in any case, among others, with parameters (RFC 7240, section 2)',
      { prefer: 'wait=10, Respond-Async; x=y' },
    ],
  ])('202 at once with Location and Preference-Applied for %s', async (_name, headers) => {
    const event = fresh({ ms: 200 });
    const response = await post(event, headers);
    expect([response.status, await response.text()]).toEqual([202, '']);
    expect(response.headers.get('location')).toBe(`/runs/${idOf(event)}`);
    expect(response.headers.get('preference-applied')).toBe('respond-async');
    expect(await look(event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 1 });
  });

  it.each<[string, Record<string, string>]>([
    ['no preference', {}],
    ['another preference', { prefer: 'return=minimal' }],
    ['a preference that only begins like it', { prefer: 'respond-async-later' }],
  ])('without Preference-Applied for %s', async (_name, headers) => {
    const response = await post(fresh(), headers);
    expect([response.status, response.headers.get('preference-applied')]).toEqual([200, null]);
  });

  it.each([
    ['/function/step', '/function/step'],
    ['/function/step/', '/function/step'],
    ['//elsewhere.com', ''],
    ['https://elsewhere.com', ''],
    ['/a"b', ''],
  ])(
    'a Location under the prefix %j that the gateway names, where it is a plain path',
    async (given, prefix) => {
      const event = fresh();
      const response = await post(event, { ...respondAsync, 'x-forwarded-prefix': given });
      expect(response.headers.get('location')).toBe(`${prefix}/runs/${idOf(event)}`);
    },
  );
});

describe('a repeat of an event', () => {
  it.each<[string, StepPlan, number, number]>([
    ['success is final and answered again', {}, 200, 1],
    ['a 4xx is final and answered again', { fail: 'no-images' }, 422, 1],
    ['a 400 too', { fail: 'bad-request' }, 400, 1],
    ['a 5xx starts a new attempt', { fail: 'store-unavailable' }, 503, 2],
    ['a 500 too', { fail: 'internal' }, 500, 2],
    ['a 429 too', { fail: 'too-many-requests' }, 429, 2],
    ['cancelled starts a new attempt', { fail: 'cancelled' }, 503, 2],
  ])('%s', async (_name, plan, status, attempt) => {
    const event = fresh(plan);
    const statuses = [(await post(event)).status, (await post(event)).status];
    expect(statuses).toEqual([status, status]);
    expect(await look(event)).toMatchObject({ attempt });
  });

  it('that still runs joins it', async () => {
    const event = fresh({ ms: 300 });
    const answers = await Promise.all([post(event), post(event, {}, encodeStructured), post(event)]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(await look(event)).toMatchObject({ attempt: 1 });
  });

  it('with another body is refused: 422 event-reused', async () => {
    const event = fresh();
    await post(event);
    const response = await post({ ...event, data: { reason: '{"ms":1}' } });
    expect([response.status, await response.json()]).toMatchObject([422, { code: 'event-reused' }]);
  });

  it('with another time, trace or content type is the same event', async () => {
    const event = fresh();
    await post(event);
    const response = await post({
      ...event,
      time: '2020-01-01T00:00:00Z',
      traceparent: 'other',
      partitionkey: 'x',
    });
    expect([response.status, response.headers.get('dandelion-run-reused')]).toEqual([200, 'true']);
  });
});

describe('GET /runs/{id}', () => {
  it('says status, attempt, progress, times, result event and problem', async () => {
    const [good, bad] = [fresh(), fresh({ fail: 'no-images' })];
    await post(good);
    await post(bad);
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
    const times = { createdAt: time, startedAt: time, updatedAt: time, finishedAt: time };
    const progress = { done: 2, total: 2 };
    expect(await look(good)).toMatchObject({
      ...{
        id: idOf(good),
        function: 'step',
        status: 'succeeded',
        attempt: 1,
        progress,
        problem: null,
        ...times,
      },
      result: { id: resultIdOf('step', good.source, good.id), specversion: '1.0' },
    });
    expect(await look(bad)).toMatchObject({
      status: 'failed',
      result: null,
      problem: { code: 'no-images' },
      ...times,
    });
  });

  it.each<[string, StepPlan, string]>([
    ['succeeded', {}, 'succeeded'],
    ['failed', { fail: 'internal' }, 'failed'],
    ['cancelled', { fail: 'cancelled' }, 'cancelled'],
  ])('has the status %s', async (_name, plan, status) => {
    const event = fresh(plan);
    await post(event);
    expect(await look(event)).toMatchObject({ status });
  });

  it.each(['20s', '20', '20000ms'])('holds the answer until it changes with ?wait=%s', async (wait) => {
    const event = fresh({ ms: 200 });
    await post(event, respondAsync);
    expect(await look(event)).toMatchObject({ status: 'running', finishedAt: null });
    expect(await look(event, `?wait=${wait}`)).toMatchObject({ status: 'succeeded' });
  });

  it('answers at once when the run has ended, and when the wait is over', async () => {
    const event = fresh({ ms: 1500 });
    await post(event, respondAsync);
    expect(await look(event, '?wait=1ms')).toMatchObject({ status: 'running' });
    await look(event, '?wait=20s');
    expect(await look(event, '?wait=20s')).toMatchObject({ status: 'succeeded' });
  });

  it.each(['soon', '-1', '1h'])('refuses ?wait=%s with 400', async (wait) => {
    const event = fresh();
    await post(event);
    expect((await fetch(pathOf(event, `?wait=${wait}`))).status).toBe(400);
  });
});

describe('GET /runs/{id}/result, for a stock HttpSensor', () => {
  it.each<[string, StepPlan, number, string]>([
    ['200 with the event when succeeded', {}, 200, 'application/cloudevents+json'],
    ['422 with the problem when refused (a 422)', { fail: 'no-images' }, 422, 'application/problem+json'],
    ['422 with the problem when refused (a 400)', { fail: 'bad-request' }, 422, 'application/problem+json'],
    ['500 with the problem when failed', { fail: 'internal' }, 500, 'application/problem+json'],
    [
      '500, not 503, which the sensor would wait on',
      { fail: 'store-unavailable' },
      500,
      'application/problem+json',
    ],
    ['500 when cancelled', { fail: 'cancelled' }, 500, 'application/problem+json'],
  ])('answers %s', async (_name, plan, status, type) => {
    const event = fresh(plan);
    await post(event);
    const response = await fetch(pathOf(event, '/result'));
    expect([response.status, response.headers.get('content-type')?.split(';')[0]]).toEqual([status, type]);
    if (status !== 200)
      expect(await response.json()).toMatchObject({ status, code: plan.fail, run: idOf(event) });
  });

  it('answers 404 until finished', async () => {
    const event = fresh({ ms: 300 });
    await post(event, respondAsync);
    expect((await fetch(pathOf(event, '/result'))).status).toBe(404);
  });
});

describe('an unknown run', () => {
  it.each([
    ['GET', ''],
    ['GET', '?wait=5s'],
    ['GET', '/result'],
    ['POST', '/retry'],
  ])('is 410 for %s /runs/{id}%s', async (method, suffix) => {
    const response = await fetch(pathOf(fresh(), suffix), { method });
    expect([response.status, await response.json()]).toMatchObject([410, { code: 'run-unknown' }]);
  });

  it('is one that finished more than 30 days ago', async () => {
    const event = fresh();
    await post(event);
    await database.db`update steps set finished_at = now() - interval '31 days' where id = ${idOf(event)}`;
    await purgeSteps(database.db, 30 * 24 * 3_600_000);
    expect((await fetch(pathOf(event))).status).toBe(410);
  });
});

describe('POST /runs/{id}/retry', () => {
  it.each<[string, StepPlan]>([
    ['a success', {}],
    ['a refusal', { fail: 'no-images', failUntil: 2 }],
    ['a failure', { fail: 'internal', failUntil: 2 }],
  ])('forces a re-run of %s', async (_name, plan) => {
    const event = fresh(plan);
    await post(event);
    const response = await retry(event);
    expect([response.status, response.headers.get('location')]).toEqual([202, `/runs/${idOf(event)}`]);
    expect(await look(event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 2 });
  });

  it('joins a run that is under way', async () => {
    const event = fresh({ ms: 300 });
    await post(event, respondAsync);
    expect((await retry(event)).headers.get('dandelion-run-reused')).toBe('true');
    expect(await look(event, '?wait=20s')).toMatchObject({ attempt: 1 });
  });
});

describe('an expired lease is taken over by whoever sees it', () => {
  it.each<[string, (event: Event) => Promise<unknown>]>([
    ['the next POST', (event) => post(event)],
    ['the next POST with respond-async', (event) => post(event, respondAsync)],
    ['GET /runs/{id}', (event) => look(event)],
    ['GET /runs/{id}?wait=', (event) => look(event, '?wait=100ms')],
    ['GET /runs/{id}/result', (event) => fetch(pathOf(event, '/result'))],
    ['POST /runs/{id}/retry', (event) => retry(event)],
  ])('%s', async (_name, see) => {
    const event = await abandoned();
    await see(event);
    expect(await look(event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 2 });
  });

  it('a sweep in a running pod', async () => {
    const event = await abandoned();
    open.push(await startPod({ SWEEP_MS: '50' }));
    const status = async () => (await findStep(database.db, 'step', idOf(event)))?.status;
    await expect.poll(status, { timeout: 10_000 }).toBe('succeeded');
  });

  it('after 30 s, with a heartbeat every 10 s, unless told otherwise', () => {
    expect(readRuntimeSettings({}, step)).toMatchObject({ LEASE_MS: 30_000, HEARTBEAT_MS: 10_000 });
  });
});

describe('what is not offered', () => {
  it.each([
    ['GET', '/', 405, 'POST'],
    ['PUT', '/', 405, 'POST'],
    ['POST', '/runs/x', 405, 'GET, HEAD'],
    ['DELETE', '/runs/x', 405, 'GET, HEAD'],
    ['POST', '/runs/x/result', 405, 'GET, HEAD'],
    ['GET', '/runs/x/retry', 405, 'POST'],
    ['GET', '/elsewhere', 404, null],
  ])('%s %s is %i, and says what is', async (method, path, status, allow) => {
    const response = await fetch(`${url}${path}`, { method });
    expect([response.status, response.headers.get('allow')]).toEqual([status, allow]);
  });
});

describe('on Knative a run keeps its pod', () => {
  /** A queue-proxy as far as the pod sees it: hands requests on and counts those in flight. */
  async function startProxy() {
    const proxy = { target: '', inFlight: 0, paths: [] as string[] };
    const server = createServer(async (request, response) => {
      proxy.inFlight += 1;
      proxy.paths.push(request.url ?? '');
      const gone = new AbortController();
      response.once('close', () => {
        proxy.inFlight -= 1;
        gone.abort();
      });
      const headers = request.headers as Record<string, string>;
      const answer = await fetch(`${proxy.target}${request.url}`, { headers, signal: gone.signal }).catch(
        () => undefined,
      );
      if (answer !== undefined) response.writeHead(answer.status).end(await answer.text());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    open.push({ close: async () => void server.close() });
    const address = server.address();
    return Object.assign(proxy, { port: typeof address === 'object' ? address?.port : 0 });
  }

  it('by a request to itself through the queue-proxy, for as long as it works and no longer', async () => {
    const proxy = await startProxy();
    const token = 'a-token-of-enough-length';
    const knative = {
      K_SERVICE: 'step',
      QUEUE_PROXY_URL: `http://127.0.0.1:${proxy.port}`,
      DANDELION_TOKEN: token,
    };
    const pod = await startPod(knative);
    open.push(pod);
    proxy.target = pod.url;
    const event = fresh({ ms: 2500 });
    const { headers, body } = encodeBinary(event);
    const authorization = `Bearer ${token}`;
    const init = {
      method: 'POST',
      headers: { ...headers, ...respondAsync, authorization },
      body: new Uint8Array(body ?? []),
    };
    expect((await fetch(pod.url, init)).status).toBe(202);
    await expect.poll(() => proxy.inFlight, { timeout: 2400 }).toBe(1);
    expect(await findStep(database.db, 'step', idOf(event))).toMatchObject({ status: 'running' });
    await expect.poll(() => proxy.inFlight, { timeout: 10_000 }).toBe(0);
    expect(await findStep(database.db, 'step', idOf(event))).toMatchObject({ status: 'succeeded' });
    expect(proxy.paths).toEqual([`/runs/${idOf(event)}?wait=60000ms`]);
  });
});
