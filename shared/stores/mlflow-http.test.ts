import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { TrackingSettings } from '../config.ts';
import { openMlflowHttp } from './mlflow-http.ts';

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A server that gives these answers one after the other, the last for ever. */
async function answering(...answers: Answer[]) {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    request.resume();
    answers[Math.min(requests.length, answers.length) - 1]?.(response, request);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { address: `127.0.0.1:${port}`, requests };
}

const text =
  (status: number, body: string, headers: Record<string, string> = {}): Answer =>
  (response) =>
    void response.writeHead(status, headers).end(body);
const json = (status: number, body: unknown): Answer => text(status, JSON.stringify(body));
const refusal = (code: string, message: string) => json(400, { error_code: code, message });

function ask(address: string, settings: TrackingSettings = {}, patienceMs = 5000) {
  const wanted = { ...settings, MLFLOW_TRACKING_URI: `http://${address}` };
  const http = openMlflowHttp(wanted, { patienceMs });
  return http.call(
    { method: 'POST', path: 'runs/search', body: {} },
    z.object({ runs: z.array(z.string()) }),
  );
}

describe('what passes is waited for', () => {
  test.each<[string, Answer]>([
    ['too many requests', text(429, '', { 'retry-after': '0' })],
    ['a proxy without its server', text(502, '<html><body>Bad gateway</body></html>')],
    ['a server in trouble', json(500, { error_code: 'INTERNAL_ERROR', message: 'database is locked' })],
    ['a connection that breaks', (_response, request) => void request.socket.destroy()],
  ])('%s', async (_title, trouble) => {
    const server = await answering(trouble, trouble, json(200, { runs: ['r'] }));
    expect(await ask(server.address)).toEqual({ runs: ['r'] });
    expect(server.requests).toHaveLength(3);
  });

  test('for a time; then it is trouble of the store, named without its password', async () => {
    const server = await answering(text(503, 'later'));
    const asked = ask(`user:hunter2@${server.address}`, {}, 0);
    const sentence = `MLflow at http://${server.address} is in trouble (503 for runs/search: later); try again in a moment.`;
    await expect(asked).rejects.toMatchObject({ code: 'store-unavailable', status: 503, message: sentence });
    const gone = ask('user:hunter2@127.0.0.1:59', {}, 0);
    await expect(gone).rejects.toMatchObject({
      code: 'store-unavailable',
      message:
        'MLflow at http://127.0.0.1:59 does not answer (ECONNREFUSED): see that it runs and that MLFLOW_TRACKING_URI is its address, and try again in a moment.',
    });
  });
});

describe('what will not pass is said at once', () => {
  test.each<[string, Answer, string, RegExp]>([
    [
      'a name that the server does not answer to',
      text(403, 'Invalid Host header - possible DNS rebinding attack detected'),
      'bad-config',
      /start it with --allowed-hosts 127\.0\.0\.1:\d+/,
    ],
    ['an account that may not', text(403, 'Permission denied'), 'bad-config', /does not allow runs\/search/],
    ['no credentials', text(401, 'no'), 'bad-config', /set MLFLOW_TRACKING_USERNAME/],
    [
      'an unknown route',
      text(404, '<h1>Not Found</h1>'),
      'bad-config',
      /404: Not Found.*MLFLOW_TRACKING_URI/,
    ],
    ['a page where an answer belongs', text(200, '<h1>Sign in</h1>'), 'bad-config', /Sign in/],
    [
      'an answer of another form',
      json(200, { runs: [1] }),
      'bad-config',
      /no MLflow server that this version/,
    ],
    ['a refusal', refusal('INVALID_PARAMETER_VALUE', 'too long'), 'store-refused', /runs\/search: too long/],
  ])('%s', async (_title, answer, code, sentence) => {
    const server = await answering(answer);
    await expect(ask(server.address)).rejects.toMatchObject({ code, message: sentence });
    expect(server.requests).toHaveLength(1);
  });
});

describe('credentials', () => {
  const nobody = { MLFLOW_TRACKING_USERNAME: undefined, MLFLOW_TRACKING_PASSWORD: undefined };
  test.each([
    [
      'name and password',
      { MLFLOW_TRACKING_USERNAME: 'ann', MLFLOW_TRACKING_PASSWORD: 'a:b' },
      '',
      'Basic YW5uOmE6Yg==',
    ],
    ['those of the address', nobody, 'ann:a%3Ab@', 'Basic YW5uOmE6Yg=='],
    ['a token', { MLFLOW_TRACKING_TOKEN: 'secret' }, '', 'Bearer secret'],
    ['none', nobody, '', undefined],
  ])('are sent: %s', async (_title, settings, inAddress, expected) => {
    const server = await answering(json(200, { runs: [] }));
    await ask(`${inAddress}${server.address}`, settings);
    expect(server.requests[0]?.headers.authorization).toBe(expected);
  });

  test('that are wrong are said to be', async () => {
    const server = await answering(text(401, 'You are not authenticated'));
    const asked = ask(server.address, { MLFLOW_TRACKING_TOKEN: 'secret' });
    await expect(asked).rejects.toMatchObject({
      code: 'bad-config',
      message: /does not know these credentials/,
    });
  });
});
