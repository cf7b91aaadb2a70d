import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { encodeBinary, encodeStructured } from './cloudevents.ts';
import { stepEvent } from './fixtures/functions.ts';
import { recordingLogger } from './fixtures/lines.ts';
import { createFunctionServer, type FunctionServer } from './server.ts';
import { startFunction } from './testing.ts';
import type { FunctionEvent, FunctionModule } from './types.ts';

const running: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.close()));
});

async function start(module: FunctionModule, options: Parameters<typeof startFunction>[1] = {}) {
  const server = await startFunction(module, options);
  running.push(server);
  return server;
}

const answering = (handler: FunctionModule['handler']) => start({ handler });

async function post(url: string, event: Event, encode = encodeBinary): Promise<Response> {
  const { headers, body } = encode(event);
  return fetch(url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
}

describe('health', () => {
  async function startLate(module: FunctionModule): Promise<{ url: string; server: FunctionServer }> {
    const env = { PORT: '0', LOG_LEVEL: 'silent' };
    const server = createFunctionServer(module, { name: 'late', env });
    running.push(server);
    const { url } = await server.listen();
    return { url, server };
  }

  it.each([
    ['/health/live', '/health/ready'],
    ['/_/health', '/_/ready'],
  ])('%s answers before init is done, %s only after it', async (live, ready) => {
    const { url, server } = await startLate({ handler: () => 'x' });
    expect((await fetch(url + live)).status).toBe(200);
    const early = await fetch(url + ready);
    expect(early.status).toBe(503);
    expect(early.headers.get('retry-after')).toBe('1');
    expect(await early.json()).toMatchObject({ code: 'not-ready' });
    expect(await (await fetch(url)).json()).toMatchObject({ code: 'not-ready' });
    await server.init();
    expect((await fetch(url + ready)).status).toBe(200);
  });

  it('holds a probe that comes while it starts, and answers it as soon as it is ready', async () => {
    const model = Promise.withResolvers<void>();
    const env = { PORT: '0', LOG_LEVEL: 'silent', PROBE_HOLD_MS: '60000' };
    const server = createFunctionServer(
      { handler: () => 'x', init: () => model.promise },
      { name: 'held', env },
    );
    running.push(server);
    const { url } = await server.listen();
    const initialised = server.init();
    const arrived = once(server.app.server, 'request');
    const probe = fetch(`${url}/health/ready`);
    await arrived;
    model.resolve();
    await initialised;
    expect((await probe).status).toBe(200);
  });

  it('asks the function whether it is ready', async () => {
    const answers = [false, true];
    const { url } = await start({ handler: () => 'x', ready: () => answers.shift() ?? true });
    expect((await fetch(`${url}/health/ready`)).status).toBe(503);
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
  });
});

describe('plain HTTP', () => {
  it.each<[string, unknown, number, string | null, string]>([
    ['a value', { a: 1 }, 200, 'application/json; charset=utf-8', '{"a":1}'],
    ['text', 'hello', 200, 'text/plain; charset=utf-8', 'hello'],
    ['bytes', Buffer.from('raw'), 200, 'application/octet-stream', 'raw'],
    ['null', null, 200, 'application/json; charset=utf-8', 'null'],
    ['nothing', undefined, 204, null, ''],
  ])('answers %s', async (_name, value, status, type, text) => {
    const { url } = await answering(() => value);
    const response = await fetch(url);
    expect([response.status, response.headers.get('content-type'), await response.text()]).toEqual([
      status,
      type,
      text,
    ]);
  });

  it('takes status and headers from the context, in the manner of OpenFaaS', async () => {
    const { url } = await answering((_event, context) =>
      context.status(201).headers({ 'Content-Type': 'text/html', 'X-Made': 'yes' }).succeed('<p>'),
    );
    const response = await fetch(url);
    expect(response.status).toBe(201);
    expect(response.headers.get('content-type')).toBe('text/html');
    expect(response.headers.get('x-made')).toBe('yes');
  });

  it('gives the handler body, bytes, path, query and headers', async () => {
    const seen: FunctionEvent[] = [];
    const { url } = await answering((event) => void seen.push(event));
    const headers = { 'content-type': 'application/json; charset=utf-8', 'x-mine': '1' };
    await fetch(`${url}/a/b?q=1&q=2`, { method: 'PUT', headers, body: '{"n":1}' });
    await fetch(url, { method: 'POST', headers: { 'content-type': 'image/png' }, body: 'png' });
    expect(seen[0]).toMatchObject({ body: { n: 1 }, path: '/a/b', query: { q: ['1', '2'] }, method: 'PUT' });
    expect(seen[0]?.headers['x-mine']).toBe('1');
    expect(seen[1]?.body).toEqual(Buffer.from('png'));
  });

  it('refuses broken JSON', async () => {
    const { url } = await answering(() => 'x');
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(url, { method: 'POST', headers, body: '{' });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'bad-request' });
  });
});

describe('CloudEvents', () => {
  const result: FunctionModule['handler'] = (_event, context) =>
    context.result('dev.dandelion.retrain.requested.v1', {
      model: 'flowers',
      source: { kind: 'folder', uri: 'file:///x' },
      seed: 1,
    });

  it('answers in the mode of the request, with one event', async () => {
    const { url } = await answering(result);
    const binary = await post(url, stepEvent('1'));
    expect(binary.headers.get('ce-type')).toBe('dev.dandelion.retrain.requested.v1');
    expect(await binary.json()).toMatchObject({ model: 'flowers' });
    const structured = await post(url, stepEvent('1'), encodeStructured);
    expect(structured.headers.get('content-type')).toMatch('application/cloudevents+json');
    expect(await structured.json()).toMatchObject({
      source: expect.stringContaining('/dandelion/functions/'),
    });
  });

  it('answers nothing with an empty body', async () => {
    const { url } = await answering(() => undefined);
    const response = await post(url, stepEvent('1'));
    expect([response.status, await response.text()]).toEqual([204, '']);
  });

  it('answers anything else as bad-result, because a broker would take it for a failure', async () => {
    const { url } = await answering(() => ({ not: 'an event' }));
    const response = await post(url, stepEvent('1'));
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ code: 'bad-result' });
  });

  it('refuses a result that does not fit its schema', async () => {
    const { url } = await answering((_event, context) =>
      context.result('dev.dandelion.retrain.requested.v1', {} as never),
    );
    expect(await (await post(url, stepEvent('1'))).json()).toMatchObject({ code: 'bad-result' });
  });

  it('refuses batches and malformed events with final codes', async () => {
    const { url } = await answering(() => undefined);
    const headers = { 'content-type': 'application/cloudevents-batch+json' };
    expect((await fetch(url, { method: 'POST', headers, body: '[]' })).status).toBe(415);
    expect((await fetch(url, { method: 'POST', headers: { 'ce-id': '1' } })).status).toBe(400);
  });
});

describe('problems', () => {
  it('shows ours, with its code, further members and Retry-After', async () => {
    const { url } = await answering((_event, context) =>
      context.fail(new DandelionError('too-few-images', 'Add photos.', { extra: { needed: 5 } })),
    );
    const response = await fetch(url);
    expect(response.status).toBe(422);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    const traceId = expect.stringMatching(/^[0-9a-f]{32}$/);
    expect(await response.json()).toMatchObject({
      code: 'too-few-images',
      detail: 'Add photos.',
      needed: 5,
      traceId,
    });
    const busy = await answering(() => {
      throw new DandelionError('no-champion', 'None yet.', { retryAfterMs: 2500 });
    });
    expect((await fetch(busy.url)).headers.get('retry-after')).toBe('3');
  });

  it('hides the inside of anything else, and logs it', async () => {
    const { logger, lines } = recordingLogger('secretive');
    const handler = () => {
      throw new Error('password of db.internal is hunter2');
    };
    const { url } = await start({ handler }, { logger });
    const response = await fetch(url);
    const text = await response.text();
    expect(response.status).toBe(500);
    expect(text).not.toContain('hunter2');
    const { traceId } = JSON.parse(text) as { traceId: string };
    await expect
      .poll(() => lines.find((line) => line['trace.id'] === traceId))
      .toMatchObject({
        'log.level': 'error',
        'error.code': 'internal',
        error: { message: expect.stringContaining('hunter2'), stack_trace: expect.any(String) },
      });
  });

  it('keeps headers that were set before the failure, except those that tell of a body', async () => {
    const { url } = await answering((_event, context) => {
      context.headers({
        allow: 'GET',
        'content-type': 'text/html',
        'cache-control': 'immutable',
        etag: '"1"',
      });
      throw new DandelionError('method-not-allowed', 'Use GET.');
    });
    const { status, headers } = await fetch(url, { method: 'DELETE' });
    expect([status, headers.get('allow'), headers.get('content-type')]).toEqual([
      405,
      'GET',
      'application/problem+json',
    ]);
    expect([headers.get('cache-control'), headers.get('etag')]).toEqual([null, null]);
  });

  it('knows no path but answers it in the same shape', async () => {
    const { url } = await answering(() => 'x');
    const response = await fetch(url, { method: 'PROPFIND' });
    expect([response.status, await response.json()]).toMatchObject([404, { code: 'not-found' }]);
  });
});

describe('trace', () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  const traceparent = `00-${traceId}-b7ad6b7169203331-01`;
  const echo: FunctionModule['handler'] = (_event, context) => context.traceparent;

  it('is carried on from the request, with a span of our own', async () => {
    const { url } = await answering(echo);
    const carried = await (await fetch(url, { headers: { traceparent } })).text();
    expect(carried).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`));
    expect(carried).not.toBe(traceparent);
  });

  it.each(['', 'nonsense', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `ff-${traceId}-b7ad6b7169203331-01`])(
    'begins anew when the header is %j',
    async (header) => {
      const { url } = await answering(echo);
      const made = await (await fetch(url, { headers: { traceparent: header } })).text();
      expect(made).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      expect(made).not.toContain(traceId);
    },
  );

  it('goes from an event to its result', async () => {
    const { url } = await answering((_event, context) =>
      context.result('dev.dandelion.retrain.requested.v1', {
        model: 'flowers',
        source: { kind: 'folder', uri: 'file:///x' },
        seed: 1,
      }),
    );
    const response = await post(url, { ...stepEvent('1'), traceparent });
    expect(response.headers.get('ce-traceparent')).toContain(traceId);
  });
});

describe('log and metrics', () => {
  it('writes one ECS line a request and none for probes', async () => {
    const { logger, lines } = recordingLogger('spoken');
    const { url } = await start({ handler: () => 'x' }, { logger, name: 'spoken' });
    await fetch(`${url}/health/live`);
    await fetch(`${url}/first?secret=1`);
    await fetch(`${url}/second`);
    await expect.poll(() => lines.filter((line) => line['event.action'] === 'request').length).toBe(2);
    const requests = lines.filter((line) => line['event.action'] === 'request');
    expect(requests[0]).toMatchObject({
      'service.name': 'spoken',
      'faas.name': 'spoken',
      'faas.coldstart': true,
      'faas.execution': expect.any(String),
      'faas.trigger.type': 'http',
      'trace.id': expect.stringMatching(/^[0-9a-f]{32}$/),
      'event.duration': expect.any(Number),
      'event.outcome': 'success',
      'http.request.method': 'GET',
      'http.response.status_code': 200,
      'url.path': '/first',
    });
    expect(requests[1]).toMatchObject({ 'faas.coldstart': false });
  });

  it('counts invocations, errors, the cold start and what the process uses', async () => {
    const handler: FunctionModule['handler'] = (event) => {
      if (event.path === '/bad') throw new DandelionError('bad-data', 'no');
      return 'x';
    };
    const { url } = await start({ handler }, { name: 'counted' });
    await fetch(url);
    await fetch(`${url}/bad`);
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(text).toContain('faas_invocations_total{trigger="http",function="counted"} 2');
    expect(text).toContain('faas_errors_total{code="bad-data",function="counted"} 1');
    expect(text).toContain('faas_coldstarts_total{function="counted"} 1');
    expect(text).toContain('faas_invocation_duration_seconds_count{function="counted"} 2');
    expect(text).toContain('faas_init_duration_seconds_count{function="counted"} 1');
    expect(text).toContain('faas_inflight{function="counted"} 0');
    expect(text).toContain('process_resident_memory_bytes{function="counted"}');
  });
});
