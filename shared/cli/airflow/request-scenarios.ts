import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { requestRetraining } from '../../function/retraining.ts';
import { type DriftCheck, listDriftChecks } from '../../stores/drift-checks.ts';
import { listRuns } from '../../stores/steps.ts';
import { reviewPhotos } from '../story-review.ts';
import { openPhotoStream } from '../story-stream.ts';
import { describeTasks } from './failures.ts';
import type { Stage } from './stage.ts';

const patienceMs = 120_000;
/** More than a window of the stage. */
const PHOTOS_AT_DUSK = 90;

/** One policy: a request goes to Airflow, and only there; the same one twice is one run. */
export async function assetEvent(stage: Stage): Promise<string> {
  const { api, url, user, password } = stage.airflow;
  const settings = { AIRFLOW_URL: url, AIRFLOW_USERNAME: user, AIRFLOW_PASSWORD: password };
  const request = {
    id: `request-${Date.now()}`,
    source: '/dandelion/functions/monitor',
    data: {
      model: `m${Date.now().toString(36)}`,
      source: { kind: 'folder' as const, uri: stage.photosUri },
      seed: 1,
      force: false,
      reason: 'the photos drifted',
    },
  };
  const sink = () => Promise.reject(new Error('the broker was asked too'));
  const runsBefore = new Set((await api.runs('retrain')).map((run) => run.dag_run_id));
  const requestsBefore = (await api.runs('on_request')).length;
  assert.equal(await requestRetraining(request, { settings, sink }), 'airflow');
  await requestRetraining(request, { settings, sink });
  const deadline = Date.now() + patienceMs;
  const begun = async () => (await api.runs('retrain')).filter((run) => !runsBefore.has(run.dag_run_id));
  while ((await begun()).length === 0) {
    assert.ok(Date.now() < deadline, 'no run of retrain began');
    await sleep(250);
  }
  for (const { dag_run_id: id } of (await api.runs('on_request')).slice(requestsBefore)) {
    await api.awaitEnd('on_request', id);
  }
  const [run, ...more] = await begun();
  assert.ok(run);
  assert.equal(more.length, 0, 'the repeat made a second run');
  const ended = await api.awaitEnd('retrain', run.dag_run_id);
  assert.equal(ended.state, 'success');
  await api.pause('on_request', true);
  const refused = await requestRetraining({ ...request, id: 'paused' }, { settings, sink }).catch(String);
  await api.pause('on_request', false);
  assert.match(refused, /paused/);
  return `one run, ${run.dag_run_id}, succeeded; with the DAG paused the sender is told so`;
}

/**
 * A champion is asked photos unlike those it learnt from. The alarm waits for a label, so the DAG stops; with a label it
 * asks for a training, which comes as a run of `retrain` and by nobody else.
 */
export async function driftFound(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const { modelName: model, gatewayUrl, database } = stage.platform;
  const first = await stage.retrain({ model });
  assert.equal((await api.awaitEnd('retrain', first.runId)).state, 'success');
  const photos = await openPhotoStream(gatewayUrl, 1).ask(PHOTOS_AT_DUSK, 'dusk');
  const alarm = await awaitAlarm(stage, model);
  const before = new Set((await api.runs('retrain')).map((run) => run.dag_run_id));
  const waits = await lookForDrift(stage, model);
  assert.deepEqual([waits.stop, waits.retrain], ['success', 'skipped']);
  await reviewPhotos(gatewayUrl, photos.slice(0, 1));
  const asks = await lookForDrift(stage, model);
  assert.deepEqual([asks.stop, asks.retrain], ['skipped', 'success']);
  const [begun, ...more] = await begunSince(stage, before);
  assert.ok(begun);
  const ended = await api.awaitEnd('retrain', begun);
  assert.equal(ended.state, 'success', describeTasks(await api.tasks('retrain', begun)));
  const callers = (await listRuns(database, { function: 'ingest' }))
    .filter(({ event }) => event.subject === model)
    .map(({ event }) => event.source);
  assert.deepEqual(
    [more, callers],
    [[], ['/airflow/retrain', '/airflow/retrain']],
    'somebody else trained, too',
  );
  const features = alarm.report.findings.filter(({ drifted }) => drifted).map(({ feature }) => feature);
  return `drift of ${features.join(', ')} after ${PHOTOS_AT_DUSK} photos; without a label the DAG stops, with one ${begun} is the one training, and succeeded`;
}

async function awaitAlarm({ platform }: Stage, model: string): Promise<DriftCheck> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const alarm = (await listDriftChecks(platform.database, model, 100)).find(({ report }) => report.drifted);
    if (alarm !== undefined) return alarm;
    assert.ok(Date.now() < deadline, 'monitor saw no drift');
    await sleep(250);
  }
}

/** Runs the DAG `monitor` to its end. @returns state of each task */
async function lookForDrift({ airflow: { api } }: Stage, model: string) {
  const { runId, status, detail } = await api.trigger('monitor', { model });
  assert.ok(runId, `Airflow answered ${status}: ${detail}`);
  const run = await api.awaitEnd('monitor', runId);
  const tasks = await api.tasks('monitor', runId);
  assert.equal(run.state, 'success', describeTasks(tasks));
  return Object.fromEntries(tasks.map(({ task_id: id, state }) => [id, state]));
}

/** Runs of `retrain` that began since, once there is one. */
async function begunSince({ airflow: { api } }: Stage, before: ReadonlySet<string>): Promise<string[]> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const begun = (await api.runs('retrain')).map((run) => run.dag_run_id).filter((id) => !before.has(id));
    if (begun.length > 0) return begun;
    assert.ok(Date.now() < deadline, 'no run of retrain began');
    await sleep(250);
  }
}
