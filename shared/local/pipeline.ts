import { setTimeout as sleep } from 'node:timers/promises';
import type { ErrorCode, Problem } from '../errors.ts';
import { type Event, eventSchemas, type MetricsSummary, runIdOf } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { readChampion, readEvaluation, readModel } from '../stores/models.ts';
import type { ObjectStore } from '../stores/objects.ts';
import { findStep, listRuns, type StepRun } from '../stores/steps.ts';
import type { Broker } from './broker.ts';

/** The functions of the pipeline, in order. */
export const pipelineFunctions = ['ingest', 'preprocess', 'train', 'evaluate', 'deploy'] as const;
export type PipelineFunction = (typeof pipelineFunctions)[number];

export const requestType = 'dev.dandelion.retrain.requested.v1';
export const rejectionType = 'dev.dandelion.model.rejected.v1';
const skippedType = 'dev.dandelion.training.skipped.v1';
const approvalType = 'dev.dandelion.model.approved.v1';

export interface PipelineStep {
  function: PipelineFunction;
  /** `waiting`: not its turn; `queued`: its turn, not begun or to be tried again. */
  status: 'waiting' | 'queued' | 'running' | 'succeeded' | 'failed';
  attempt: number;
  progress: { done: number; total: number; note: string } | null;
  /** ISO 8601, UTC. */
  startedAt: string | null;
  finishedAt: string | null;
  /** Done by an earlier request for the same thing. */
  reused: boolean;
  problem: { title: string; detail: string; code: string } | null;
}

export interface Champion {
  name: string;
  version: string;
  /** On the test split. */
  metrics: MetricsSummary | null;
  dataset: { version: string; images: number; classes: Record<string, number> } | null;
}

export interface PipelineState {
  request: { source: string; id: string; time: string | null } | null;
  steps: PipelineStep[];
  /** Of the candidate on the test split, once it was evaluated. */
  metrics: MetricsSummary | null;
  champion: Champion | null;
}

/** The pipeline as the ledger tells it. */
export interface Pipeline {
  snapshot(): Promise<PipelineState>;
  /** Calls the listener with the present state and after each change; returns the way to end it. */
  subscribe(listener: (state: PipelineState) => void): () => void;
  stop(): void;
}

/** The request whose pipeline is shown, and what was done before it came. */
interface Current {
  event: Event;
  finishedBefore: Promise<Set<string>>;
  /** Problems of steps that were given up, by run. */
  givenUp: Map<string, Problem>;
  /** True when this platform brings its events around. */
  live: boolean;
}

const pollMs = 250;

/**
 * Follows the last pipeline: the last request this broker took, else the last one in the ledger.
 */
export function followPipeline(options: {
  db: Database;
  objects: ObjectStore;
  model: string;
  broker: Pick<Broker, 'onAccepted' | 'onDeadLetter'>;
}): Pipeline {
  const { db, broker } = options;
  const champions = championReader(options.objects, options.model);
  const listeners = new Set<(state: PipelineState) => void>();
  let current: Current | undefined;
  let watching = false;
  let shown = '';

  const ends = [
    broker.onAccepted((event) => {
      if (event.type !== requestType) return;
      const finishedBefore = readChain(db, event).then(finishedAttempts);
      finishedBefore.catch(() => {});
      current = { event, finishedBefore, givenUp: new Map(), live: true };
    }),
    broker.onDeadLetter(({ event, function: name, problem }) => {
      current?.givenUp.set(runIdOf(name, event.source, event.id), problem);
    }),
  ];

  const snapshot = async (): Promise<PipelineState> => {
    const shownRequest = current ?? (await lastRequest(db));
    const champion = await champions();
    if (shownRequest === undefined) {
      return { request: null, steps: pipelineFunctions.map(waitingStep), metrics: null, champion };
    }
    const { event } = shownRequest;
    const chain = await readChain(db, event);
    return {
      request: { source: event.source, id: event.id, time: event.time ?? null },
      steps: describeChain(chain, shownRequest, await shownRequest.finishedBefore),
      metrics: candidateMetrics(chain),
      champion,
    };
  };

  const poll = async (): Promise<void> => {
    const state = await snapshot();
    const text = JSON.stringify(state);
    if (text === shown) return;
    shown = text;
    for (const listener of listeners) listener(state);
  };

  /** One look after another for as long as someone listens. */
  const watch = async (): Promise<void> => {
    if (watching) return;
    watching = true;
    while (listeners.size > 0) {
      await sleep(pollMs, undefined, { ref: false });
      // The database may be away for a moment; the next look shows.
      await poll().catch(() => {});
    }
    watching = false;
  };

  return {
    snapshot,
    subscribe(listener) {
      listeners.add(listener);
      snapshot().then(
        (state) => listeners.has(listener) && listener(state),
        () => {},
      );
      void watch();
      return () => listeners.delete(listener);
    },
    stop() {
      for (const end of ends) end();
      listeners.clear();
    },
  };
}

/** One link of a chain: the event a function is due to get (if its turn has come) and the run it made of it. */
export interface ChainLink {
  function: PipelineFunction;
  event: Event | undefined;
  run: StepRun | undefined;
}

/** Follows a request through the ledger: each result is the next function's event. */
export async function readChain(db: Database, request: Event): Promise<ChainLink[]> {
  const links: ChainLink[] = [];
  let event: Event | undefined = request;
  for (const name of pipelineFunctions) {
    const run: StepRun | undefined =
      event === undefined ? undefined : await findStep(db, name, runIdOf(name, event.source, event.id));
    links.push({ function: name, event, run });
    event = run?.status === 'succeeded' ? (run.result ?? undefined) : undefined;
  }
  return links;
}

function describeChain(chain: ChainLink[], current: Current, finishedBefore: Set<string>): PipelineStep[] {
  return chain.map(({ function: name, event, run }): PipelineStep => {
    if (event === undefined) return waitingStep(name);
    if (event.type === rejectionType) return refusedStep(name, event);
    if (event.type === skippedType) return waitingStep(name);
    const givenUp = current.givenUp.get(runIdOf(name, event.source, event.id)) ?? null;
    if (run === undefined) {
      const status = givenUp === null ? 'queued' : 'failed';
      return { ...waitingStep(name), status, problem: briefly(givenUp) };
    }
    const { attempt, progress, startedAt, finishedAt } = run;
    return {
      function: name,
      status: statusOf(run, current.live && givenUp === null),
      attempt,
      progress: progress && { ...progress, note: progress.note ?? '' },
      startedAt,
      finishedAt,
      reused: finishedBefore.has(attemptKey(run)),
      problem: briefly(run.problem ?? givenUp),
    };
  });
}

/** @param triedAgain whether a failure that is not final is still the broker's to mend */
function statusOf(run: StepRun, triedAgain: boolean): PipelineStep['status'] {
  if (run.status !== 'failed' && run.status !== 'cancelled') return run.status;
  return triedAgain && !run.final ? 'queued' : 'failed';
}

function waitingStep(name: PipelineFunction): PipelineStep {
  const nothing = { progress: null, startedAt: null, finishedAt: null, reused: false, problem: null };
  return { function: name, status: 'waiting', attempt: 0, ...nothing };
}

/** What the gate refused is not deployed. */
function refusedStep(name: PipelineFunction, event: Event): PipelineStep {
  const checks = verdictOf(event)?.checks ?? [];
  const failed = checks
    .filter((check) => !check.passed)
    .map(({ value, limit, detail }) => `${detail}: ${rounded(value)}, limit ${limit}`);
  const problem = {
    title: 'The gate refused this model',
    detail: failed.join('; '),
    code: 'model-rejected' satisfies ErrorCode,
  };
  return { ...waitingStep(name), status: 'failed', problem };
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

function briefly(problem: Problem | null): PipelineStep['problem'] {
  return problem && { title: problem.title, detail: problem.detail, code: problem.code };
}

/** An event of an older product may fit today's schema no more; then its figures are not shown. */
function verdictOf(event: Event | null | undefined) {
  const schema = event?.type === rejectionType ? rejectionType : approvalType;
  return event?.type === schema ? eventSchemas[schema].safeParse(event.data).data : undefined;
}

function candidateMetrics(chain: ChainLink[]): MetricsSummary | null {
  const evaluation = chain.find((link) => link.function === 'evaluate')?.run;
  return verdictOf(evaluation?.result)?.metrics ?? null;
}

const attemptKey = (run: StepRun) => `${run.id} ${run.attempt}`;

function finishedAttempts(chain: ChainLink[]): Set<string> {
  return new Set(chain.flatMap(({ run }) => (run?.status === 'succeeded' ? [attemptKey(run)] : [])));
}

async function lastRequest(db: Database): Promise<Current | undefined> {
  const runs = await listRuns(db, { function: pipelineFunctions[0] });
  const requests = runs.filter((run) => run.event.type === requestType);
  const last = requests.reduce<StepRun | undefined>(
    (latest, run) => (latest === undefined || run.createdAt > latest.createdAt ? run : latest),
    undefined,
  );
  if (last === undefined) return undefined;
  return { event: last.event, finishedBefore: Promise.resolve(new Set()), givenUp: new Map(), live: false };
}

/** A version never changes, so its records are read once. */
function championReader(objects: ObjectStore, name: string): () => Promise<Champion | null> {
  const known = new Map<string, Champion>();
  return async () => {
    const found = await readChampion(objects, name);
    if (found === undefined) return null;
    const { version } = found.champion;
    const champion = known.get(version) ?? (await readVersion(objects, name, version));
    if (champion.metrics !== null && champion.dataset !== null) known.set(version, champion);
    return champion;
  };
}

async function readVersion(objects: ObjectStore, name: string, version: string): Promise<Champion> {
  const [record, evaluation] = await Promise.all([
    readModel(objects, name, version).catch(() => undefined),
    readEvaluation(objects, name, version).catch(() => undefined),
  ]);
  const dataset = record && {
    version: record.dataset.version,
    images: record.dataset.images,
    classes: record.dataset.classes,
  };
  return { name, version, metrics: evaluation?.metrics ?? null, dataset: dataset ?? null };
}
