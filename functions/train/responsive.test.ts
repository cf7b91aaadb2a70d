import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEvent, digestOf, type EventData } from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { storeDataset } from '../../shared/stores/datasets.ts';
import { storeFeatures } from '../../shared/stores/features.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { CLASSICAL_EXTRACTOR } from '../../shared/vision/classical.ts';
import { seededRandom } from '../../shared/vision/random.ts';
import * as train from './handler.ts';

/** A fit of some seconds. */
const photos = 800;
const dimension = 1280;
const extractor = { id: CLASSICAL_EXTRACTOR.id, dimension, inputSize: 224 };

let stores: TestStores;
let stored: EventData<'dev.dandelion.features.stored.v1'>;

beforeAll(async () => {
  stores = await testStores();
  stored = await storeRandomFeatures();
});
afterAll(() => stores.drop());

/** Features that say little about their class, so that the fit has work to do. */
async function storeRandomFeatures(): Promise<EventData<'dev.dandelion.features.stored.v1'>> {
  const random = seededRandom(7);
  const images = Array.from({ length: photos }, (_, photo) => {
    const sha256 = digestOf(String(photo));
    const split = photo % 10 === 0 ? ('validation' as const) : ('train' as const);
    return { sha256, label: photo % 3 === 0 ? 'dandelion' : 'grass', group: sha256, split };
  });
  const dataset = await storeDataset(stores.db, { model: 'noise', ingestion: 'noise', seed: 1, images });
  const vectorOf = (label: string) =>
    Float32Array.from({ length: dimension }, () => random() + (label === 'grass' ? 0.03 : 0));
  for (let start = 0; start < photos; start += 200) {
    const rows = images.slice(start, start + 200).map(({ sha256, label }) => {
      return { sha256, vector: vectorOf(label), augmentedVector: vectorOf(label), statistics: {} };
    });
    await storeFeatures(stores.db, 'noise', extractor.id, rows);
  }
  return { model: 'noise', ingestion: 'noise', seed: 1, dataset, extractor, rejectedCount: 0 };
}

/** Asks one thing over and over until told to stop; gives every answer. */
function askAlways<Answer>(ask: () => Promise<Answer>): { stop(): Promise<Answer[]> } {
  let asking = true;
  const loop = async () => {
    const answers: Answer[] = [];
    while (asking) answers.push(await ask());
    return answers;
  };
  const looping = loop();
  return {
    stop: () => {
      asking = false;
      return looping;
    },
  };
}

/** Asking all the time takes its share of a busy machine. */
const timeout = 300_000;

it('answers probes and questions about the run all the time while it trains', { timeout }, async () => {
  const pod = await startFunction(train, { name: 'train', env: stores.env });
  const event = createEvent({
    type: 'dev.dandelion.features.stored.v1',
    source: '/test',
    id: 'long',
    data: stored,
  });
  const { headers, body } = encodeBinary(event);
  const init = {
    method: 'POST',
    headers: { ...headers, prefer: 'respond-async' },
    body: new Uint8Array(body ?? []),
  };
  const accepted = await fetch(pod.url, init);
  const run = `${pod.url}${accepted.headers.get('location')}`;

  let finished = false;
  const probes = askAlways(async () => ({
    status: (await fetch(`${pod.url}/health/live`)).status,
    finished,
  }));
  const looks = askAlways(
    async () => (await (await fetch(run)).json()) as { status: string; progress: { done: number } | null },
  );
  let last: { status: string };
  do last = (await (await fetch(`${run}?wait=30s`)).json()) as { status: string };
  while (last.status === 'running');
  finished = true;
  const [probed, looked] = await Promise.all([probes.stop(), looks.stop()]);
  await pod.close();

  expect(last).toMatchObject({ status: 'succeeded', attempt: 1 });
  const during = probed.filter((answer) => !answer.finished);
  expect(during.every(({ status }) => status === 200)).toBe(true);
  const running = looked.filter(({ status }) => status === 'running');
  // Trained in the thread that answers, it would let some 250 probes and 80 looks in: a few after each of its steps.
  expect(during.length).toBeGreaterThan(600);
  expect(running.length).toBeGreaterThan(200);
  expect(new Set(running.map(({ progress }) => progress?.done)).size).toBeGreaterThan(5);
});
