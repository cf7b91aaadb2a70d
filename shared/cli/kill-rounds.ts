import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Event } from '../events.ts';
import { type PipelineFunction, pipelineFunctions, readChain } from '../local/pipeline.ts';
import { type Platform, startPlatform } from '../local/platform.ts';
import {
  auditPipeline,
  drawFolder,
  type Fault,
  type PhotoCounts,
  quickPipelineEnv,
  requestFor,
  waitForPipeline,
} from '../local/testing-pipelines.ts';
import { type Random, seededRandom } from '../vision/random.ts';

export interface KillRoundsOptions {
  /** Pipelines that are struck; one more runs first, unharmed, to learn how long each step takes. */
  pipelines: number;
  /** Chooses victims and moments; the moments are met as well as the machine allows. */
  seed: number;
  /** An empty folder. */
  folder: string;
  /** Hears a line for each pipeline. */
  say: (line: string) => void;
  /** Settings of the platform; DATABASE_URL spares the embedded server. */
  env?: Record<string, string>;
}

export interface KillRounds {
  pipelines: number;
  /** Signals sent to processes of functions. */
  kills: number;
  /** Attempts that died and were followed by another one. */
  struckAttempts: number;
  /** Times the whole platform was stopped in the middle of a pipeline and started again. */
  restarts: number;
  faults: Fault[];
}

/** One blow: so long after an attempt of the function began. */
interface Strike {
  function: PipelineFunction;
  /** Share of the step's usual duration; beyond 1 it falls between this step and the next. */
  moment: number;
  signal: 'SIGKILL' | 'SIGTERM';
}

const classes: PhotoCounts = { dandelion: 20, grass: 20 };
const patienceMs = 120_000;
/** Of ten pipelines one sees the whole platform stop and start again. */
const pipelinesPerRestart = 10;
const shareOfSigterm = 0.2;
const latestMoment = 1.2;

/**
 * Runs pipelines on drawn photos through the real platform, ends processes of functions at moments that a seed
 * chooses, and holds what is left at the end against what should be there: everything, once.
 *
 * A pipeline that does not end within two minutes ends the rounds.
 */
export async function runKillRounds(options: KillRoundsOptions): Promise<KillRounds> {
  const { folder, say, pipelines } = options;
  const random = seededRandom(options.seed);
  const dataDir = join(folder, 'data');
  const env = { ...(await quickPipelineEnv(folder)), ...options.env };
  const start = () => startPlatform({ dataDir, port: 0, env });
  const rounds: KillRounds = { pipelines: 0, kills: 0, struckAttempts: 0, restarts: 0, faults: [] };
  const requests: Event[] = [];
  let platform = await start();
  try {
    const usualMs = await runUnharmed(platform, folder);
    for (let number = 1; number <= pipelines; number++) {
      const model = `k${String(number).padStart(4, '0')}`;
      const request = await drawRequest(folder, model, number);
      requests.push(request);
      const startedAt = Date.now();
      await platform.broker.publish(request);
      const ended = new AbortController();
      const strikes = strikeAll(() => platform, request, planStrikes(random), usualMs, ended.signal);
      if (number % pipelinesPerRestart === 0) {
        await sleep(random() * sum(Object.values(usualMs)));
        await platform.stop();
        platform = await start();
        rounds.restarts += 1;
      }
      const runs = await waitForPipeline(platform.database, request, patienceMs);
      ended.abort();
      const blows = await strikes;
      rounds.pipelines += 1;
      rounds.kills += blows.length;
      rounds.struckAttempts += sum(Object.values(runs).map((run) => run.attempt - 1));
      const faults = await audit(platform, dataDir, request);
      say(describePipeline({ number, pipelines, blows, runs, faults, durationMs: Date.now() - startedAt }));
      if (faults.some(({ kind }) => kind === 'unfinished')) break;
    }
    await platform.broker.idle();
    for (const request of requests) rounds.faults.push(...(await audit(platform, dataDir, request)));
    rounds.faults.push(...(await undeliveredEvents(dataDir)));
    return rounds;
  } finally {
    await platform.stop();
  }
}

async function drawRequest(folder: string, model: string, number: number): Promise<Event> {
  const photos = join(folder, 'photos', model);
  await drawFolder(photos, classes, 1 + number * 1000);
  return requestFor(model, photos);
}

function audit(platform: Platform, dataDir: string, request: Event): Promise<Fault[]> {
  return auditPipeline({ ...platform, trackingDir: join(dataDir, 'tracking') }, request, classes);
}

/** @returns how long each step takes when nobody disturbs it, in milliseconds */
async function runUnharmed(platform: Platform, folder: string): Promise<Record<PipelineFunction, number>> {
  const usual = { ingest: 0, preprocess: 0, train: 0, evaluate: 0, deploy: 0 };
  // The first one starts the functions, the second one shows the steps alone.
  for (const model of ['cold', 'warm']) {
    const request = await drawRequest(folder, model, 0);
    await platform.broker.publish(request);
    const runs = await waitForPipeline(platform.database, request, patienceMs);
    for (const name of pipelineFunctions) {
      const { startedAt, finishedAt } = runs[name] ?? {};
      usual[name] = Date.parse(finishedAt ?? '') - Date.parse(startedAt ?? '');
      if (Number.isNaN(usual[name])) throw new Error(`${name} did not end although nobody disturbed it`);
    }
  }
  await rm(join(folder, 'photos'), { recursive: true, force: true });
  return usual;
}

function planStrikes(random: Random): Strike[] {
  const count = 1 + Math.floor(random() * 3);
  return Array.from({ length: count }, () => ({
    function: pipelineFunctions[Math.floor(random() * pipelineFunctions.length)] ?? 'ingest',
    moment: random() * latestMoment,
    signal: random() < shareOfSigterm ? 'SIGTERM' : 'SIGKILL',
  }));
}

interface Blow extends Strike {
  /** Since the first attempt of any step. */
  atMs: number;
}

async function strikeAll(
  platform: () => Platform,
  request: Event,
  plan: Strike[],
  usualMs: Record<PipelineFunction, number>,
  ended: AbortSignal,
): Promise<Blow[]> {
  const startedAt = Date.now();
  const byFunction = Map.groupBy(plan, (strike) => strike.function);
  const blows = await Promise.all(
    [...byFunction.values()].map(async (strikes) => {
      const struck: Blow[] = [];
      for (const [index, strike] of strikes.entries()) {
        if (!(await attemptBegins(platform, request, strike.function, index + 1, ended))) break;
        await sleep(strike.moment * usualMs[strike.function]);
        const victim = platform()
          .processes.running()
          .find(({ name }) => name === strike.function);
        if (victim === undefined) break;
        process.kill(victim.processId, strike.signal);
        struck.push({ ...strike, atMs: Date.now() - startedAt });
      }
      return struck;
    }),
  );
  return blows.flat().sort((a, b) => a.atMs - b.atMs);
}

/** Waits until the ledger says that this attempt (or a later one) is worked on; false when the pipeline ended before. */
async function attemptBegins(
  platform: () => Platform,
  request: Event,
  name: PipelineFunction,
  attempt: number,
  ended: AbortSignal,
): Promise<boolean> {
  while (!ended.aborted) {
    // Between a stop and a start of the platform there is no ledger to ask.
    const chain = await readChain(platform().database, request).catch(() => []);
    const run = chain.find((link) => link.function === name)?.run;
    if (run?.status === 'running' && run.attempt >= attempt) return true;
    await sleep(5);
  }
  return false;
}

async function undeliveredEvents(dataDir: string): Promise<Fault[]> {
  const left = (await readdir(join(dataDir, 'broker'))).filter((name) => name.endsWith('.json'));
  return left.map((name) => ({ kind: 'unfinished', what: `the broker still holds the event ${name}` }));
}

function describePipeline(pipeline: {
  number: number;
  pipelines: number;
  blows: Blow[];
  runs: Awaited<ReturnType<typeof waitForPipeline>>;
  faults: Fault[];
  durationMs: number;
}): string {
  const { number, pipelines, blows, runs, faults, durationMs } = pipeline;
  const struck = blows.map((blow) => `${blow.function} ${blow.signal} at ${blow.atMs} ms`).join(', ');
  const again = Object.values(runs).filter((run) => run.attempt > 1);
  const attempts = again.map((run) => `${run.function} in attempt ${run.attempt}`).join(', ');
  const outcome =
    faults.length === 0 ? 'whole' : faults.map(({ kind, what }) => `${kind}: ${what}`).join('; ');
  const parts = [struck || 'nothing struck', attempts, `${outcome} after ${durationMs} ms`];
  return `${number}/${pipelines}  ${parts.filter((part) => part !== '').join(' | ')}`;
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
