import { once } from 'node:events';
import { createServer } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { createAssetEvent } from './airflow.ts';

const uri = 'dandelion://retrain/requested';
const extra = { event: { id: '1' } };
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

type Answers = Record<string, [status: number, body: unknown]>;
interface Asked {
  question: string;
  authorization: string | undefined;
  body: unknown;
}

/** What Airflow 3.3 answers; other answers take the place of these. */
const airflowAnswers: Answers = {
  'POST /auth/token': [201, { access_token: 'jwt' }],
  'GET /api/v2/assets': [
    200,
    {
      assets: [
        { id: 6, uri: `${uri}/other`, scheduled_dags: [{ dag_id: 'other' }] },
        { id: 7, uri, scheduled_dags: [{ dag_id: 'on_request' }] },
      ],
      total_entries: 2,
    },
  ],
  'GET /api/v2/dags/on_request': [200, { dag_id: 'on_request', is_paused: false }],
  'POST /api/v2/assets/events': [200, { id: 1, asset_id: 7, extra }],
};

async function airflow(other: Answers = {}) {
  const answers = { ...airflowAnswers, ...other };
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    const text = Buffer.concat(await request.toArray()).toString();
    const question = `${request.method} ${request.url?.split('?')[0]}`;
    asked.push({
      question,
      authorization: request.headers.authorization,
      body: text === '' ? undefined : JSON.parse(text),
    });
    const [status, body] = answers[question] ?? [404, { detail: 'Not Found' }];
    response.writeHead(status).end(typeof body === 'string' ? body : JSON.stringify(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return { url: `http://127.0.0.1:${port}`, asked };
}

test('the event goes to the asset of that very URI, under the token of a login', async () => {
  const { url, asked } = await airflow();
  const account = { AIRFLOW_USERNAME: 'admin', AIRFLOW_PASSWORD: 'geheim' };
  await createAssetEvent({ AIRFLOW_URL: `${url}/`, ...account }, { uri, extra });
  expect(asked).toEqual([
    {
      question: 'POST /auth/token',
      authorization: undefined,
      body: { username: 'admin', password: 'geheim' },
    },
    { question: 'GET /api/v2/assets', authorization: 'Bearer jwt', body: undefined },
    { question: 'GET /api/v2/dags/on_request', authorization: 'Bearer jwt', body: undefined },
    { question: 'POST /api/v2/assets/events', authorization: 'Bearer jwt', body: { asset_id: 7, extra } },
  ]);
});

test('a token makes the login needless', async () => {
  const { url, asked } = await airflow();
  await createAssetEvent({ AIRFLOW_URL: url, AIRFLOW_TOKEN: 'given' }, { uri, extra });
  expect(asked.map(({ authorization }) => authorization)).toEqual(Array(3).fill('Bearer given'));
});

test.each<[what: string, answers: Answers, code: string, named: string]>([
  [
    'a wrong password',
    { 'POST /auth/token': [401, { detail: 'Invalid credentials' }] },
    'bad-config',
    'AIRFLOW_PASSWORD',
  ],
  [
    'an account without the right',
    { 'POST /api/v2/assets/events': [403, { detail: 'Forbidden' }] },
    'bad-config',
    'AIRFLOW_USERNAME',
  ],
  ['an asset that no DAG names', { 'GET /api/v2/assets': [200, { assets: [] }] }, 'bad-config', uri],
  [
    'an asset that no DAG waits for',
    { 'GET /api/v2/assets': [200, { assets: [{ id: 7, uri }] }] },
    'bad-config',
    'DAG processor',
  ],
  ['a paused DAG', { 'GET /api/v2/dags/on_request': [200, { is_paused: true }] }, 'bad-config', 'on_request'],
  ['another server', { 'POST /auth/token': [200, '<html>Welcome</html>'] }, 'bad-config', 'AIRFLOW_URL'],
  ['a page for people', { 'POST /auth/token': [302, ''] }, 'bad-config', '302'],
  ['trouble', { 'GET /api/v2/assets': [503, 'starting'] }, 'store-unavailable', '503'],
])('%s is named', async (_what, answers, code, named) => {
  const { url, asked } = await airflow(answers);
  const settings = { AIRFLOW_URL: url.replace('//', '//admin:geheim@') };
  const error = await createAssetEvent(settings, { uri, extra }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code, message: expect.stringContaining(named) });
  expect(String(error)).not.toContain('geheim');
  const posted = asked.some(({ question }) => question === 'POST /api/v2/assets/events');
  expect(posted).toBe('POST /api/v2/assets/events' in answers);
});

test('no server is an outage', async () => {
  const { url } = await airflow();
  for (const close of closers.splice(0)) close();
  await expect(createAssetEvent({ AIRFLOW_URL: url }, { uri, extra })).rejects.toMatchObject({
    code: 'store-unavailable',
  });
});
