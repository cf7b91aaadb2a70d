import assert from 'node:assert/strict';
import { once } from 'node:events';
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { pipelineFunctions } from '../../local/pipeline.ts';
import { listRuns } from '../../stores/steps.ts';
import type { DagRun } from './api.ts';
import { describeTasks } from './failures.ts';
import { assetEvent, driftFound } from './request-scenarios.ts';
import { MLFLOW_PAGE, type Stage, type StageOptions, setStage } from './stage.ts';
import { formatOverhead, formatTimings, timingsOf } from './timings.ts';

/** What happens to Airflow or a function, and what must come of it. */
interface Scenario {
  name: string;
  /** @returns what was seen; throws when it is not what it must be */
  play(stage: Stage): Promise<string>;
}

export interface ScenarioOptions extends StageOptions {
  /** Only scenarios whose name has this in it. */
  only?: string | undefined;
  /** Leaves everything running at the end, until Ctrl-C. */
  stay?: boolean | undefined;
}

const waiting = ['deferred'];
const patienceMs = 60_000;

const scenarios: Scenario[] = [
  { name: 'a run', play: aRun },
  { name: 'the same run again: every task cleared', play: clearedRun },
  { name: 'wrong Params', play: wrongParams },
  { name: 'a step that refuses its input', play: refusedStep },
  { name: 'the triggerer killed while a task waits', play: killedTriggerer },
  { name: 'the function killed in its step', play: killedFunction },
  { name: 'all of Airflow stopped; the step ends meanwhile', play: restartedAirflow },
  { name: 'all of Airflow killed; the step ends meanwhile', play: killedAirflow },
  { name: 'a request to retrain as an event of the asset, twice', play: assetEvent },
  { name: 'drift, seen by monitor and taken up by its DAG', play: driftFound },
  { name: 'a backfill of three shards', play: backfill },
];

/**
 * Plays every scenario on an Airflow of its own with all its processes, against functions of this platform, and prints
 * what was seen.
 *
 * @returns the exit code
 */
export async function runScenarios(folder: string, options: ScenarioOptions): Promise<number> {
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  const played = scenarios.filter(({ name }) => name.includes(options.only ?? ''));
  const stage = await setStage(folder, options);
  let failed = 0;
  try {
    for (const { name, play } of played) {
      const startedAt = Date.now();
      try {
        const seen = await play(stage);
        say(`\nok      ${name} (${((Date.now() - startedAt) / 1000).toFixed(0)} s)\n${indented(seen)}`);
      } catch (error) {
        failed += 1;
        say(`\nFAILED  ${name}\n${indented(String(error))}`);
        stage.held.release();
        await stage.airflow.start();
      }
    }
    say(`\n${played.length - failed} of ${played.length} scenarios ended as they must.`);
    if (options.stay) {
      const { url, user, password } = stage.airflow;
      say(`Airflow stays at ${url} (${user}, ${password}) until Ctrl-C.`);
      await once(process, 'SIGINT');
    }
    return failed === 0 ? 0 : 1;
  } finally {
    await stage.close();
  }
}

const indented = (text: string) => text.replaceAll(/^/gm, '        ');

/** Twice: the first one finds a triggerer and functions that have just started. */
async function aRun(stage: Stage): Promise<string> {
  return `${await timedRun(stage)}\n\nanother one\n${await timedRun(stage)}`;
}

async function timedRun(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const { runId, model } = await stage.retrain();
  const run = await api.awaitEnd('retrain', runId);
  const tasks = await api.tasks('retrain', runId);
  assert.equal(run.state, 'success', describeTasks(tasks));
  const log = await api.log('retrain', runId, 'wait_ingest', 1);
  assert.match(log, /\d+ of \d+ photos/, 'the log of the task does not tell of the progress');
  const links = await api.links('retrain', runId, 'wait_train');
  assert.equal(links['Model in MLflow'], `${MLFLOW_PAGE}/#/models/${model}`, JSON.stringify(links));
  const timings = timingsOf(run, tasks, await stage.stepsOf(model));
  const tries = tasks.filter((task) => task.try_number > 1).length;
  return `${formatTimings(timings)}\n${formatOverhead(timings)}\nthe whole run ${runSeconds(run)} s, ${tries} tasks retried; load ${loadavg()[0]?.toFixed(1)} on ${availableParallelism()} cores`;
}

async function clearedRun(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const { runId, model } = await stage.retrain();
  await api.awaitEnd('retrain', runId);
  const before = await stage.stepsOf(model);
  await api.clear('retrain', runId);
  // It leaves its end before it comes to another one.
  await api.awaitTask('retrain', runId, 'wait_deploy', [
    'none',
    '',
    'scheduled',
    'queued',
    'running',
    'deferred',
  ]);
  const run = await api.awaitEnd('retrain', runId);
  assert.equal(run.state, 'success');
  const after = await stage.stepsOf(model);
  assert.deepEqual([...after].map(workOf), [...before].map(workOf));
  const submit = (await api.tasks('retrain', runId)).find((task) => task.task_id === 'ingest');
  assert.ok((submit?.try_number ?? 0) > 1, 'the tasks did not begin anew');
  const trained = after.get('train')?.result?.subject;
  return `${after.size} steps, each still at attempt 1 with its first result; the model is ${trained} as before`;
}

const workOf = ([name, run]: [string, { id: string; attempt: number; result: { id: string } | null }]) => [
  name,
  run.id,
  run.attempt,
  run.result?.id,
];

async function wrongParams(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const good = { uri: stage.photosUri, kind: 'folder' };
  const wrong: Record<string, unknown>[] = [
    { uri: undefined },
    { uri: 'ftp://x/y' },
    { kind: 'tape' },
    { model: 'Not A Name' },
    { seed: -1 },
    { force: 'perhaps' },
    { canary: { shares: [0] } },
    { canary: { policy: 'brave' } },
  ];
  const before = (await api.runs('retrain')).length;
  const lines: string[] = [];
  for (const fault of wrong) {
    const { status, detail } = await api.trigger('retrain', { ...good, ...fault });
    const shown = fault.uri === undefined && 'uri' in fault ? 'no uri' : JSON.stringify(fault);
    assert.equal(status, 400, `${shown} was answered with ${status}`);
    lines.push(`${status} for ${shown}: ${firstLine(detail)}`);
  }
  assert.equal((await api.runs('retrain')).length, before);
  return lines.join('\n');
}

function firstLine(detail: string): string {
  const { detail: said } = JSON.parse(detail) as { detail: unknown };
  return (typeof said === 'string' ? said : JSON.stringify(said)).split('\n')[0] ?? '';
}

async function refusedStep(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const { runId } = await stage.retrain({ uri: stage.oneClassUri });
  const run = await api.awaitEnd('retrain', runId);
  const tasks = await api.tasks('retrain', runId);
  assert.equal(run.state, 'failed');
  const failed = tasks.find((task) => task.task_id === 'wait_ingest');
  assert.equal(failed?.state, 'failed');
  assert.equal(failed?.try_number, 1);
  assert.equal(tasks.find((task) => task.task_id === 'preprocess')?.state, 'upstream_failed');
  const log = await api.log('retrain', runId, 'wait_ingest', 1);
  const why = /too-few-classes: [^"\\(]+/.exec(log)?.[0];
  assert.ok(why, 'the log does not say why');
  return `wait_ingest failed on its first try (${why.trim()}); what follows was not run`;
}

/** Begins a run whose ingest step does not get its photos, and waits until its task waits in the triggerer. */
async function heldRun(stage: Stage): Promise<{ runId: string; model: string }> {
  stage.held.hold();
  const started = await stage.retrain({ uri: stage.held.manifestUrl, kind: 'manifest' });
  await stage.airflow.api.awaitTask('retrain', started.runId, 'wait_ingest', waiting);
  return started;
}

async function endsWell(stage: Stage, { runId, model }: { runId: string; model: string }): Promise<string> {
  const { api } = stage.airflow;
  const run = await api.awaitEnd('retrain', runId);
  const tasks = await api.tasks('retrain', runId);
  assert.equal(run.state, 'success', describeTasks(tasks));
  const steps = await stage.stepsOf(model);
  assert.equal(steps.size, pipelineFunctions.length);
  const wait = tasks.find((task) => task.task_id === 'wait_ingest');
  return `the run succeeded; wait_ingest at try ${wait?.try_number}, ingest at attempt ${steps.get('ingest')?.attempt}`;
}

async function killedTriggerer(stage: Stage): Promise<string> {
  const run = await heldRun(stage);
  await stage.airflow.kill('triggerer');
  stage.held.release();
  await stage.airflow.start('triggerer');
  return endsWell(stage, run);
}

async function killedFunction(stage: Stage): Promise<string> {
  const run = await heldRun(stage);
  const found = stage.platform.processes.running().find(({ name }) => name === 'ingest');
  assert.ok(found, 'no process works on the step');
  process.kill(found.processId, 'SIGKILL');
  stage.held.release();
  const seen = await endsWell(stage, run);
  const attempt = (await stage.stepsOf(run.model)).get('ingest')?.attempt ?? 0;
  assert.ok(attempt > 1, `the step was not cut off: ${seen}`);
  return seen;
}

async function restartedAirflow(stage: Stage): Promise<string> {
  const run = await heldRun(stage);
  await stage.airflow.stop();
  return whileAway(stage, run);
}

async function killedAirflow(stage: Stage): Promise<string> {
  const run = await heldRun(stage);
  await stage.airflow.kill();
  return whileAway(stage, run);
}

async function whileAway(stage: Stage, run: { runId: string; model: string }): Promise<string> {
  stage.held.release();
  const deadline = Date.now() + patienceMs;
  while ((await stage.stepsOf(run.model)).get('ingest')?.status !== 'succeeded') {
    assert.ok(Date.now() < deadline, 'the step does not end by itself');
    await sleep(250);
  }
  await stage.airflow.start();
  return endsWell(stage, run);
}

/** Every shard at once; a shard is its two steps. */
async function backfill(stage: Stage): Promise<string> {
  const { api } = stage.airflow;
  const model = `b${Date.now().toString(36)}`;
  const params = { uris: stage.shardUris, kind: 'folder', model };
  const { runId, status, detail } = await api.trigger('backfill_images', params);
  assert.ok(runId, `Airflow answered ${status}: ${detail}`);
  const run = await api.awaitEnd('backfill_images', runId);
  const tasks = await api.tasks('backfill_images', runId);
  assert.equal(run.state, 'success', describeTasks(tasks));
  const times = stage.shardUris.map((_, shard) => {
    const own = tasks.filter(({ map_index: index }) => index === shard);
    assert.equal(own.length, 4, `shard ${shard} has ${describeTasks(own)}`);
    const began = Math.min(...own.map((task) => Date.parse(task.start_date ?? '')));
    return { began, ended: Math.max(...own.map((task) => Date.parse(task.end_date ?? ''))) };
  });
  const lastBegun = Math.max(...times.map(({ began }) => began));
  assert.ok(
    times.every(({ ended }) => ended > lastBegun),
    'the shards ran one after the other',
  );
  for (const [name, wanted] of [['ingest', times.length] as const, ['train', 0] as const]) {
    const runs = await listRuns(stage.platform.database, { function: name });
    assert.equal(runs.filter(({ event }) => event.subject === model).length, wanted, name);
  }
  const seconds = times.map(({ began, ended }) => ((ended - began) / 1000).toFixed(1));
  return `${times.length} shards side by side in ${seconds.join(', ')} s, all in ${runSeconds(run)} s; nothing was trained`;
}

function runSeconds(run: DagRun): string {
  return ((Date.parse(run.end_date ?? '') - Date.parse(run.start_date ?? '')) / 1000).toFixed(1);
}
