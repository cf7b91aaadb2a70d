import { once } from 'node:events';
import { createServer } from 'node:http';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type FixtureSink, startSink } from './fixtures/sink.ts';
import { RETRAIN_ASSET, requestRetraining } from './retraining.ts';
import { readRuntimeSettings } from './settings.ts';
import { createSink } from './sink.ts';

let broker: FixtureSink;
const closers: (() => void)[] = [];
beforeEach(async () => {
  broker = await startSink();
});
afterEach(async () => {
  await broker.close();
  for (const close of closers.splice(0)) close();
});

const request = {
  id: 'drift-1',
  source: '/dandelion/functions/monitor',
  data: {
    model: 'dandelion',
    source: { kind: 'manifest' as const, uri: 'https://photos.example/all.csv' },
    seed: 1,
    reason: 'the brightness of the photos drifted',
  },
};
const sink = () => createSink(readRuntimeSettings({ K_SINK: broker.url }, {}));

/** Airflow's API as far as an asset event needs it. */
async function startAirflow() {
  const posted: unknown[] = [];
  const server = createServer(async (incoming, response) => {
    const text = Buffer.concat(await incoming.toArray()).toString();
    if (incoming.method === 'POST') posted.push(JSON.parse(text));
    const asset = { id: 7, uri: RETRAIN_ASSET, scheduled_dags: [{ dag_id: 'on_request' }] };
    response.end(JSON.stringify({ assets: [asset], is_paused: false, id: 1 }));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return { url: `http://127.0.0.1:${port}`, posted };
}

test('without Airflow a request goes to the broker', async () => {
  expect(await requestRetraining(request, { settings: {}, sink: sink() })).toBe('broker');
  expect(broker.events).toMatchObject([
    {
      type: 'dev.dandelion.retrain.requested.v1',
      subject: 'dandelion',
      ...request,
    },
  ]);
});

test('where Airflow is configured it goes there, and not to the broker', async () => {
  const airflow = await startAirflow();
  const settings = { AIRFLOW_URL: airflow.url, AIRFLOW_TOKEN: 'given' };
  expect(await requestRetraining(request, { settings, sink: sink() })).toBe('airflow');
  expect(airflow.posted).toMatchObject([{ asset_id: 7, extra: { event: request } }]);
  expect(broker.events).toEqual([]);
});

test('an Airflow that is away is no reason to go to the broker: the caller tries again', async () => {
  const airflow = await startAirflow();
  for (const close of closers.splice(0)) close();
  const settings = { AIRFLOW_URL: airflow.url };
  await expect(requestRetraining(request, { settings, sink: sink() })).rejects.toMatchObject({
    code: 'store-unavailable',
  });
  expect(broker.events).toEqual([]);
});

test.each([
  [503, 'upstream-unavailable'],
  [400, 'upstream-unavailable'],
])('a broker that answers %i did not take it', async (status, code) => {
  broker.answer = status;
  await expect(requestRetraining(request, { settings: {}, sink: sink() })).rejects.toMatchObject({ code });
});

test('with nobody to hear of it the settings are named', async () => {
  await expect(requestRetraining(request, { settings: {}, sink: undefined })).rejects.toMatchObject({
    code: 'bad-config',
    message: expect.stringContaining('AIRFLOW_URL'),
  });
});

test('what is no request is refused before anybody hears of it', async () => {
  const wrong = { ...request, data: { ...request.data, model: 'Not A Name' } };
  await expect(requestRetraining(wrong, { settings: {}, sink: sink() })).rejects.toMatchObject({
    code: 'bad-data',
  });
  expect(broker.events).toEqual([]);
});
