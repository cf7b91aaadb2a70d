import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Event, resultIdOf, runIdOf } from '../events.ts';
import { claimStep, findStep, finishStep, releaseLeases } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { openWay } from '../stores/testing-way.ts';
import { encodeBinary, encodeStructured } from './cloudevents.ts';
import { step, stepEvent } from './fixtures/functions.ts';
import { startFunction } from './testing.ts';
import type { FunctionModule } from './types.ts';

let database: TestDatabase;
let pod: { url: string; close(): Promise<void> };
const others: { close(): Promise<void> }[] = [];

/** Short enough for a test to see a lease expire, long enough for a busy machine to keep one. */
const quick = { LEASE_MS: '1500', HEARTBEAT_MS: '200', SWEEP_MS: '100000' };

async function startPod(env: Record<string, string> = {}, module: FunctionModule = step) {
  return startFunction(module, { name: 'step', env: { DATABASE_URL: database.url, ...quick, ...env } });
}

async function anotherPod(env: Record<string, string> = {}, module: FunctionModule = step) {
  const other = await startPod(env, module);
  others.push(other);
  return other;
}

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(async () => {
  pod = await startPod();
});
afterEach(async () => {
  await Promise.all([pod, ...others.splice(0)].map((server) => server.close()));
});
afterAll(() => database.drop());

function post(url: string, event: Event, extra: Record<string, string> = {}, encode = encodeBinary) {
  const { headers, body } = encode(event);
  return fetch(url, { method: 'POST', headers: { ...headers, ...extra }, body: new Uint8Array(body ?? []) });
}

const respondAsync = { prefer: 'respond-async' };
const idOf = (event: Event) => runIdOf('step', event.source, event.id);
const attemptOf = async (response: Response) =>
  ((await response.json()) as { metrics: { images: number } }).metrics.images;

async function look(
  url: string,
  event: Event,
  suffix = '',
): Promise<{ status: string } & Record<string, unknown>> {
  return (await fetch(`${url}/runs/${idOf(event)}${suffix}`)).json() as never;
}

describe('POST / with an event', () => {
  it('answers with the result event, whose id depends on function and input alone', async () => {
    const event = stepEvent('plain');
    const response = await post(pod.url, event);
    expect(response.status).toBe(200);
    expect(response.headers.get('ce-id')).toBe(resultIdOf('step', event.source, event.id));
    expect(response.headers.get('ce-source')).toBe('/dandelion/functions/step');
    expect(response.headers.get('dandelion-run')).toBe(idOf(event));
    expect(response.headers.get('dandelion-run-reused')).toBe('false');
  });

  it('answers a repeat from the ledger, in the mode of the repeat', async () => {
    const first = await post(pod.url, stepEvent('repeat'));
    const again = await post(pod.url, stepEvent('repeat'));
    expect(again.headers.get('dandelion-run-reused')).toBe('true');
    expect(again.headers.get('ce-id')).toBe(first.headers.get('ce-id'));
    expect(await again.text()).toBe(await first.text());
    const structured = await post(pod.url, stepEvent('repeat'), {}, encodeStructured);
    expect(await structured.json()).toMatchObject({ id: first.headers.get('ce-id') });
  });

  it('refuses the same key with another body', async () => {
    await post(pod.url, stepEvent('key'));
    const response = await post(pod.url, stepEvent('key', { ms: 1 }));
    expect([response.status, await response.json()]).toMatchObject([422, { code: 'event-reused' }]);
  });

  it('says what to send to those who send no event', async () => {
    const response = await fetch(pod.url, { method: 'POST', body: 'x' });
    expect([response.status, await response.json()]).toMatchObject([400, { code: 'bad-event' }]);
    expect((await fetch(pod.url)).headers.get('allow')).toBe('POST');
    expect((await fetch(`${pod.url}/elsewhere`)).status).toBe(404);
  });

  it('makes the id of whatever event a step returns its own, and takes nothing else', async () => {
    const own: FunctionModule = {
      durable: true,
      handler: () => ({ ...stepEvent('mine'), source: '/elsewhere' }),
    };
    const odd: FunctionModule = { durable: true, handler: () => 'text' };
    const { url } = await anotherPod({}, own);
    const event = stepEvent('own');
    expect((await post(url, event)).headers.get('ce-id')).toBe(resultIdOf('step', event.source, event.id));
    const other = await anotherPod({}, odd);
    expect(await (await post(other.url, stepEvent('odd'))).json()).toMatchObject({ code: 'bad-result' });
  });

  it('works on when the client leaves', async () => {
    const event = stepEvent('left', { ms: 300 });
    const client = new AbortController();
    const { headers, body } = encodeBinary(event);
    const init = { method: 'POST', headers, body: new Uint8Array(body ?? []), signal: client.signal };
    const left = fetch(pod.url, init).catch(() => 'left');
    await expect.poll(async () => (await look(pod.url, event)).status).toBe('running');
    client.abort();
    await left;
    expect(await look(pod.url, event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 1 });
  });
});

describe('a run that is worked on', () => {
  it('is joined by others, in the same pod and another, and never run twice', async () => {
    const other = await anotherPod();
    const event = stepEvent('joined', { ms: 400 });
    const urls = [pod.url, pod.url, other.url, other.url];
    const responses = await Promise.all(urls.map((url) => post(url, event)));
    const reused = responses.map((response) => response.headers.get('dandelion-run-reused'));
    expect(reused.filter((value) => value === 'false')).toHaveLength(1);
    for (const response of responses) {
      expect(response.status).toBe(200);
      expect(await attemptOf(response)).toBe(1);
    }
  });

  it('keeps its lease while it takes longer than that', async () => {
    const other = await anotherPod({ SWEEP_MS: '50' });
    const event = stepEvent('long', { ms: 2500 });
    expect(await attemptOf(await post(pod.url, event))).toBe(1);
    expect(await look(other.url, event)).toMatchObject({ attempt: 1 });
  });

  it('is not begun anew when the database was away for longer than the lease', async () => {
    const way = await openWay(database.url);
    const other = await anotherPod({ DATABASE_URL: way.url, SWEEP_MS: '100' });
    const event = stepEvent('outage', { ms: 11_000 });
    const answer = post(other.url, event);
    await expect.poll(async () => (await findStep(database.db, 'step', idOf(event)))?.status).toBe('running');
    await way.shut();
    // Several times as long as the lease.
    await sleep(8000);
    await way.open();
    expect(await attemptOf(await answer)).toBe(1);
    expect(await look(pod.url, event)).toMatchObject({ status: 'succeeded', attempt: 1 });
    await way.close();
  });
});

describe('a repeat of a run that failed', () => {
  it('is answered again when the input was refused', async () => {
    const event = stepEvent('refused', { fail: 'no-images' });
    const first = await post(pod.url, event);
    expect([first.status, first.headers.get('content-type')]).toEqual([422, 'application/problem+json']);
    const again = await post(pod.url, event);
    expect([again.status, again.headers.get('dandelion-run-reused')]).toEqual([422, 'true']);
    expect(await again.json()).toMatchObject({ code: 'no-images' });
    expect(await look(pod.url, event)).toMatchObject({ status: 'failed', attempt: 1 });
  });

  it.each(['internal', 'store-unavailable', 'too-many-requests', 'cancelled'] as const)(
    'starts a new attempt after %s',
    async (fail) => {
      const event = stepEvent(`again-${fail}`, { fail, failUntil: 2 });
      const first = await post(pod.url, event);
      expect(await first.json()).toMatchObject({ code: fail });
      expect(await attemptOf(await post(pod.url, event))).toBe(2);
    },
  );

  it('hides the inside of unexpected errors in the ledger too', async () => {
    const module: FunctionModule = {
      durable: true,
      handler() {
        throw new Error('password is hunter2');
      },
    };
    const { url } = await anotherPod({}, module);
    const response = await post(url, stepEvent('hidden'));
    expect(response.status).toBe(500);
    expect(JSON.stringify(await look(url, stepEvent('hidden')))).not.toContain('hunter2');
  });
});

describe('Prefer: respond-async', () => {
  it('answers 202 at once with the place of the run, behind a prefix too', async () => {
    const event = stepEvent('async', { ms: 300 });
    const prefixed = { ...respondAsync, 'x-forwarded-prefix': '/function/step' };
    const response = await post(pod.url, event, prefixed);
    expect([response.status, await response.text()]).toEqual([202, '']);
    expect(response.headers.get('location')).toBe(`/function/step/runs/${idOf(event)}`);
    expect(response.headers.get('preference-applied')).toBe('respond-async');
    expect(await look(pod.url, event)).toMatchObject({ status: 'running', finishedAt: null, result: null });
    const done = await look(pod.url, event, '?wait=20s');
    expect(done).toMatchObject({ status: 'succeeded', attempt: 1, progress: { done: 2, total: 2 } });
    expect(done.result).toMatchObject({
      id: resultIdOf('step', event.source, event.id),
      data: expect.anything(),
    });
  });

  it('does not let a caller choose where the browser is sent', async () => {
    const evil = { ...respondAsync, 'x-forwarded-prefix': '//evil.com' };
    const response = await post(pod.url, stepEvent('evil'), evil);
    expect(response.headers.get('location')).toBe(`/runs/${idOf(stepEvent('evil'))}`);
  });

  it('counts against the places, which a waiting look does not', async () => {
    const { url } = await anotherPod({}, { ...step, maxInFlight: 1 });
    const event = stepEvent('place', { ms: 500 });
    expect((await post(url, event, respondAsync)).status).toBe(202);
    expect((await post(url, stepEvent('no-place'), respondAsync)).status).toBe(503);
    expect(await look(url, event, '?wait=20s')).toMatchObject({ status: 'succeeded' });
  });
});

describe('GET /runs/{id}', () => {
  it('answers 410 for runs that are not there', async () => {
    for (const suffix of ['', '/result']) {
      const response = await fetch(`${pod.url}/runs/0123456789abcdef${suffix}`);
      expect([response.status, await response.json()]).toMatchObject([410, { code: 'run-unknown' }]);
    }
    expect((await fetch(`${pod.url}/runs/0123456789abcdef/retry`, { method: 'POST' })).status).toBe(410);
  });

  it('shows progress with its note while the step runs', async () => {
    const event = stepEvent('progress', { ms: 600 });
    await post(pod.url, event, respondAsync);
    const progress = async () => (await look(pod.url, event)).progress;
    await expect.poll(progress).toEqual({ done: 1, total: 2, note: 'half way' });
  });

  it('returns from a wait that is over although nothing changed, and refuses a wait that is none', async () => {
    const event = stepEvent('patient', { ms: 600 });
    await post(pod.url, event, respondAsync);
    expect(await look(pod.url, event, '?wait=20ms')).toMatchObject({ status: 'running' });
    expect((await fetch(`${pod.url}/runs/${idOf(event)}?wait=soon`)).status).toBe(400);
  });

  it('serves a sensor: 404 until finished, then 200, 422 or 500', async () => {
    const result = async (event: Event) => (await fetch(`${pod.url}/runs/${idOf(event)}/result`)).status;
    const event = stepEvent('sensor', { ms: 300 });
    await post(pod.url, event, respondAsync);
    expect(await result(event)).toBe(404);
    await look(pod.url, event, '?wait=20s');
    expect(await result(event)).toBe(200);
    await post(pod.url, stepEvent('sensor-422', { fail: 'bad-request' }));
    expect(await result(stepEvent('sensor-422'))).toBe(422);
    await post(pod.url, stepEvent('sensor-500', { fail: 'database-unavailable' }));
    expect(await result(stepEvent('sensor-500'))).toBe(500);
  });
});

describe('POST /runs/{id}/retry', () => {
  it('runs a finished step again, and joins one that is under way', async () => {
    const event = stepEvent('retry', { ms: 200 });
    await post(pod.url, event);
    const retry = () => fetch(`${pod.url}/runs/${idOf(event)}/retry`, { method: 'POST' });
    const [first, second] = [await retry(), await retry()];
    expect([first.status, first.headers.get('dandelion-run-reused')]).toEqual([202, 'false']);
    expect([second.status, second.headers.get('dandelion-run-reused')]).toEqual([202, 'true']);
    expect(await look(pod.url, event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 2 });
  });
});

describe('a run whose pod is gone', () => {
  async function abandon(id: string): Promise<Event> {
    const event = stepEvent(id);
    const owner = `dead-${id}`;
    await claimStep(database.db, { function: 'step', owner, leaseMs: 60_000, event });
    await releaseLeases(database.db, owner);
    return event;
  }

  it.each<[string, (url: string, event: Event) => Promise<unknown>]>([
    ['the next POST', (url, event) => post(url, event)],
    ['a look at it', (url, event) => look(url, event)],
    ['a look at its result', (url, event) => fetch(`${url}/runs/${idOf(event)}/result`)],
  ])('is taken over by %s', async (name, act) => {
    const event = await abandon(name);
    await act(pod.url, event);
    expect(await look(pod.url, event, '?wait=20s')).toMatchObject({ status: 'succeeded', attempt: 2 });
  });

  it('is taken over by the sweep of any pod', async () => {
    const event = await abandon('swept');
    await anotherPod({ SWEEP_MS: '50' });
    const status = async () => (await findStep(database.db, 'step', idOf(event)))?.status;
    await expect.poll(status, { timeout: 10_000 }).toBe('succeeded');
  });

  it('is given up by the sweep when its event ends every process that works on it', async () => {
    const event = await abandon('poison');
    await database.db`update steps set crashes = 5 where id = ${idOf(event)}`;
    await anotherPod({ SWEEP_MS: '50' });
    const problem = async () => (await findStep(database.db, 'step', idOf(event)))?.problem?.code;
    await expect.poll(problem, { timeout: 10_000 }).toBe('worker-died');
    expect(await attemptOf(await post(pod.url, event))).toBe(2);
  });

  it('stops when another attempt has it, and its late result is not written', async () => {
    const event = stepEvent('fenced', { ms: 1000, stubborn: true });
    const answer = post(pod.url, event);
    await expect.poll(async () => (await findStep(database.db, 'step', idOf(event)))?.status).toBe('running');
    await database.db`update steps set status = 'queued' where id = ${idOf(event)}`;
    const other = { function: 'step', owner: 'other', leaseMs: 60_000, event };
    const { run } = await claimStep(database.db, other);
    expect(run.attempt).toBe(2);
    const result = stepEvent('the result of attempt 2');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await findStep(database.db, 'step', run.id)).toMatchObject({
      status: 'running',
      attempt: 2,
      result: null,
    });
    await finishStep(database.db, run, { status: 'succeeded', result });
    expect((await answer).headers.get('ce-id')).toBe('the%20result%20of%20attempt%202');
  });
});

describe('a pod that stops', () => {
  it('finishes its steps within the grace period', async () => {
    const stopping = await startPod();
    const event = stepEvent('finishing', { ms: 500 });
    const answer = post(stopping.url, event);
    await expect.poll(async () => (await findStep(database.db, 'step', idOf(event)))?.status).toBe('running');
    await stopping.close();
    expect(await attemptOf(await answer)).toBe(1);
  });

  it('hands a longer step over, whether or not it listens, and says so to those who wait', async () => {
    const stopping = await startPod({ GRACE_PERIOD_MS: '100' });
    const events = [stepEvent('over-1', { ms: 2000 }), stepEvent('over-2', { ms: 2000, stubborn: true })];
    const answers = events.map((event) => post(stopping.url, event));
    const running = async () =>
      Promise.all(events.map(async (event) => (await findStep(database.db, 'step', idOf(event)))?.status));
    await expect.poll(running).toEqual(['running', 'running']);
    await stopping.close();
    for (const answer of await Promise.all(answers)) {
      expect([answer.status, await answer.json()]).toMatchObject([503, { code: 'shutting-down' }]);
      expect(answer.headers.get('retry-after')).toBe('1');
    }
    expect(await running()).toEqual(['queued', 'queued']);
    expect(await look(pod.url, events[0] as Event)).toMatchObject({ status: 'running', attempt: 2 });
  });
});
