import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createEvent,
  type Event,
  type EventData,
  type PredictionRecord,
  parseEventData,
} from '../../shared/events.ts';
import { encodeBinary } from '../../shared/function/cloudevents.ts';
import { type FixtureSink, startSink } from '../../shared/function/fixtures/sink.ts';
import { startFunction } from '../../shared/function/testing.ts';
import { writeReference } from '../../shared/stores/drift-reference.ts';
import { promoteChampion, writeEvaluation } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import { normal, seededRandom } from '../../shared/vision/random.ts';
import { SKETCH } from '../../shared/vision/sketch.ts';
import * as monitor from './handler.ts';

const model = 'plants';
const version = 'v0000000001';
const random = seededRandom(4);
let stores: TestStores;
let sink: FixtureSink;
let made = 0;
/** What `/metrics` said last. */
let figures = '';

/** One photo that was answered; `light` moves its brightness and its features. */
function answered(light = 0): PredictionRecord {
  made += 1;
  const sure = 0.6 + 0.39 * random();
  return {
    ...{ schemaVersion: 2, id: `record-${made}`, time: new Date().toISOString(), revision: null },
    ...{
      model: { name: model, version },
      outcome: 'answered',
      code: null,
      label: 'grass',
      latencyMs: 8,
      weight: 1,
    },
    scores: { grass: sure, dandelion: 1 - sure },
    input: { brightness: normal(random) + light, contrast: normal(random) },
    sketch: { id: SKETCH.id, values: Array.from({ length: 32 }, () => normal(random) + light) },
  };
}

async function storeReference(): Promise<void> {
  const photos = Array.from({ length: 300 }, () => answered());
  const column = (pick: (photo: PredictionRecord) => number) => photos.map(pick);
  await writeReference(stores.objects, model, {
    ...{ schemaVersion: 1, version, dataset: 'd1' },
    statistics: {
      brightness: column(({ input }) => input.brightness ?? 0),
      contrast: column(({ input }) => input.contrast ?? 0),
    },
    labels: photos.map(() => 'grass'),
    confidences: column(({ scores }) => scores.grass ?? 0),
    sketches: { id: SKETCH.id, rows: photos.map(({ sketch }) => sketch?.values ?? []) },
  });
}

beforeAll(async () => {
  stores = await testStores();
  sink = await startSink();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model, ingestion: 'i1', classes });
  await stores.db`update ingestions set finished_at = now()`;
  await storeDrawnModel(stores, { name: model, version, dataset });
});
afterAll(async () => {
  await sink?.close();
  await stores?.drop();
});

/** Sends answers to a monitor of its own, a hundred an event, then asks it for what `path` tells. */
async function watched(answers: PredictionRecord[], env: Record<string, string> = {}, request?: Event) {
  const server = await startFunction(monitor, {
    name: 'monitor',
    env: { ...stores.env, MODEL_NAME: model, K_SINK: sink.url, DRIFT_TIME_SHARE: '1', ...env },
  });
  const post = async (event: Event) => {
    const { headers, body } = encodeBinary(event);
    const answer = await fetch(server.url, { method: 'POST', headers, body: new Uint8Array(body ?? []) });
    expect(answer.status).toBe(204);
  };
  try {
    for (let start = 0; start < answers.length; start += 100) {
      const data = { records: answers.slice(start, start + 100) };
      await post(
        createEvent({
          type: 'dev.dandelion.predictions.made.v1',
          source: '/test',
          id: `batch-${made}-${start}`,
          data,
        }),
      );
    }
    if (request !== undefined) await post(request);
    const { checks } = (await (await fetch(`${server.url}/drift`)).json()) as {
      checks: {
        ordinal: number;
        version: string;
        report: { drifted: boolean };
        decision: { action: string } | null;
      }[];
    };
    figures = await (await fetch(`${server.url}/metrics`)).text();
    return checks;
  } finally {
    await server.close();
  }
}

const many = (count: number, light = 0) => Array.from({ length: count }, () => answered(light));
const notices = () => sink.events.splice(0).filter(({ type }) => /drift|retrain/.test(type));
const look = (id: string) =>
  createEvent({ type: 'dev.dandelion.monitoring.requested.v1', source: '/test', id, data: {} });

describe('monitor and drift', () => {
  it('looks for none where no model serves, or where it has nothing to compare with', async () => {
    expect(await watched(many(220))).toEqual([]);
    await promoteChampion(stores.objects, model, version);
    expect(await watched(many(220))).toEqual([]);
    await stores.db`delete from predictions`;
    await storeReference();
  });

  it('looks when the clock says so, and answers that event with nothing', async () => {
    const ping = { specversion: '1.0', type: 'dev.knative.sources.ping', source: '/clock', id: 'night' };
    const server = await startFunction(monitor, {
      name: 'monitor',
      env: { ...stores.env, MODEL_NAME: model },
    });
    try {
      const answer = await fetch(`${server.url}/drift`, {
        method: 'POST',
        headers: { 'content-type': 'application/cloudevents+json' },
        body: JSON.stringify(ping),
      });
      expect([answer.status, await answer.text()]).toEqual([204, '']);
    } finally {
      await server.close();
    }
  });

  it('waits for a window of different photos, then tests it once', async () => {
    const [same] = many(1);
    const repeated = Array.from({ length: 150 }, (_, index) => ({
      ...(same ?? answered()),
      id: `again-${index}`,
    }));
    expect(await watched([...repeated, ...many(120)])).toEqual([]);
    const checks = await watched(many(90));
    expect(checks).toMatchObject([{ ordinal: 1, version, report: { drifted: false }, decision: null }]);
    expect(await watched(many(100), {}, look('early'))).toHaveLength(1);
    expect(notices()).toEqual([]);
  });

  it('tells of drift with its evidence, and waits for labels before it has a model trained', async () => {
    await stores.db`delete from predictions`;
    const checks = await watched(many(200, -1.5));
    expect(checks[0]).toMatchObject({ ordinal: 2, report: { drifted: true }, decision: { action: 'wait' } });
    const [notice, ...others] = notices();
    expect(others).toEqual([]);
    const told = parseEventData(notice, 'dev.dandelion.drift.detected.v1');
    expect(told).toMatchObject({ model: { name: model, version }, check: 2, decision: { action: 'wait' } });
    const drifted = told.findings.filter((finding) => finding.drifted).map(({ feature }) => feature);
    expect(drifted.sort()).toEqual(['brightness', 'embedding']);
    expect(figures).toContain(
      `dandelion_drift_alarm{model="${model}",version="${version}",function="monitor"} 1`,
    );
    expect(figures).toMatch(/dandelion_drift_effect\{.*feature="brightness".*\} 0\.[4-9]/);
  });

  it('tells who looks now what became of the alarm that waited', async () => {
    const server = await startFunction(monitor, {
      name: 'monitor',
      env: { ...stores.env, MODEL_NAME: model, K_SINK: sink.url },
    });
    try {
      const answer = await fetch(`${server.url}/drift`, { method: 'POST' });
      expect(await answer.json()).toMatchObject({
        status: 'too-few-photos',
        alarm: { version, ordinal: 2, decision: { action: 'wait' } },
      });
    } finally {
      await server.close();
    }
    expect(notices()).toEqual([]);
  });

  it('has a model trained once the labels are there, from where the last one had its photos', async () => {
    const checks = await watched([], { DRIFT_RETRAIN_MIN_LABELS: '0' }, look('later'));
    expect(checks[0]).toMatchObject({ ordinal: 2, decision: { action: 'retrain' } });
    const [request, ...others] = notices();
    expect(others).toEqual([]);
    expect(parseEventData(request, 'dev.dandelion.retrain.requested.v1')).toMatchObject({
      model,
      source: { kind: 'folder', uri: 'file:///drawn' },
    } satisfies Partial<EventData<'dev.dandelion.retrain.requested.v1'>>);
    // Cooling down: the next alarm is told and starts nothing.
    const [next] = await watched(many(200, -1.5), { DRIFT_RETRAIN_MIN_LABELS: '0' });
    expect(next).toMatchObject({ ordinal: 3, report: { drifted: true }, decision: { action: 'wait' } });
    expect(notices().map(({ type }) => type)).toEqual(['dev.dandelion.drift.detected.v1']);
  });

  it('tells when the champion is right less often than on its test split, by what people reviewed', async () => {
    await stores.db`delete from predictions`;
    const found = {
      ...{ images: 40, accuracy: 0.95, ece: 0.02, rocAuc: 0.99, perClass: {} },
      ...{ interval: [0.83, 0.99] as [number, number] },
    };
    await writeEvaluation(stores.objects, model, version, {
      ...{
        schemaVersion: 1,
        evaluatedAt: new Date().toISOString(),
        approved: true,
        checks: [],
        champion: null,
      },
      ...{
        metrics: found,
        confusion: [
          [19, 1],
          [1, 19],
        ],
      },
    });
    const review = async (count: number, label: string) => stores.db`
      insert into feedback (id, prediction, client, model, version, predicted, label, status, reviewed_at)
      select ${label} || n, ${label} || n, '', ${model}, ${version}, 'grass', ${label}, 'accepted', now()
      from generate_series(1, ${count}) n`;
    await review(10, 'grass');
    await review(15, 'dandelion');
    const wanted = { DRIFT_MIN_REVIEWED: '26' };
    const [early] = await watched(many(200), wanted);
    expect(early?.report).toMatchObject({ drifted: false });
    await review(1, 'daisy');
    const [late] = await watched(many(200), wanted);
    const performance = { kind: 'performance', reference: 0.95, window: 10 / 26, drifted: true };
    expect(late?.report).toMatchObject({ drifted: true, findings: [performance, ...new Array(5).fill({})] });
  });
});
