import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { loadResult, requireAllAnswered } from './load.ts';
import { startPeers } from './peers.ts';
import { residentMegabytes } from './resident.ts';
import { type RunningServer, startBundle } from './server-process.ts';
import type { Stage } from './stage.ts';
import { median, quantile, ratioOf, summarise } from './statistics.ts';
import { type Goal, type Row, row } from './table.ts';
import { startWorker, type Worker } from './worker.ts';

export const connectionCounts = [1, 8, 32] as const;
const timeLimitMs = 20_000;

interface Burst {
  latenciesMs: number[];
  /** Photos a second. */
  perSecond: number;
}

/** Something that answers photos: a server, or the same work without one. */
export interface Subject {
  name: string;
  measure(connections: number, requests: number): Promise<Burst>;
  /** Resident memory at the end, in MB. */
  memory?(): Promise<number>;
}

/** One value a round, in the order of the rounds. */
interface Series {
  p50: number[];
  p99: number[];
  perSecond: number[];
  tail: number[];
}

type Measured = Map<string, Map<number, Series>>;

/** What the product promises against FastAPI, Pillow and onnxruntime. */
const goals: Record<number, { p50?: Goal; perSecond?: Goal }> = {
  1: { p50: { atMost: 0.9 } },
  8: { perSecond: { atLeast: 1.25 } },
  32: { perSecond: { atLeast: 1.25 } },
};

/** Latency and throughput of predict, beside the work alone and beside the peers, burst by burst in turns. */
export async function measurePredict(stage: Stage): Promise<Row[]> {
  const load = startWorker('load-worker.ts');
  const alone = startWorker('alone-worker.ts');
  const servers: RunningServer[] = [];
  try {
    const { distDir } = stage.options;
    servers.push(await startBundle('predict', { distDir, env: stage.env, logsDir: stage.logsDir }));
    servers.push(...(await startPeers(stage, stage.options.peers)));
    const subjects = [
      ...(await Promise.all(servers.map((server) => serverSubjects(stage, load, server)))).flat(),
      await gatewaySubject(stage, load),
      ...('serving.onnx' in stage.model.files ? [aloneSubject(stage, alone)] : []),
    ];
    const measured = await measureInTurns(stage, subjects);
    const memory = await Promise.all(subjects.map(memoryRow));
    return [...rowsOf(subjects, measured), ...comparisons(subjects, measured), ...memory.flat()];
  } finally {
    await Promise.all([load.close(), alone.close(), ...servers.map((server) => server.stop())]);
  }
}

async function serverSubjects(stage: Stage, load: Worker, server: RunningServer): Promise<Subject[]> {
  const { name, url } = server;
  await tellAnswer(stage, name, url);
  const subject = await loadSubject(stage, load, name, url);
  const subjects = [{ ...subject, memory: () => residentMegabytes(server.processId) }];
  if (name !== 'FastAPI') return subjects;
  // Neither of its two ways is the stronger one everywhere, so both are to be beaten.
  return [...subjects, await loadSubject(stage, load, 'FastAPI inline', `${url}/inline`)];
}

async function gatewaySubject(stage: Stage, load: Worker): Promise<Subject> {
  return loadSubject(stage, load, 'predict by gateway', `${stage.platform.gatewayUrl}/function/predict/`);
}

/** A server of photos at an address, asked by the load of another process. */
export async function loadSubject(stage: Stage, load: Worker, name: string, url: string): Promise<Subject> {
  const body = new Uint8Array(await readFile(stage.photo.path));
  const headers = { 'content-type': 'image/jpeg' };
  return {
    name,
    async measure(connections, requests) {
      const warmUp = Math.max(10, 2 * connections);
      const plan = { url, connections, requests, warmUp, timeLimitMs, body, headers };
      const result = await load.ask(plan, loadResult);
      requireAllAnswered(name, result);
      return result;
    },
  };
}

/** Decoding and inference in one process, without HTTP: nothing is to be won beyond it by a better server. */
function aloneSubject({ model, options, photo }: Stage, alone: Worker): Subject {
  const graph = join(options.dataDir, 'objects/models', model.name, model.version, 'serving.onnx');
  const answer = z.object({ latenciesMs: z.array(z.number()), perSecond: z.number() });
  return {
    name: 'decode + inference alone',
    measure: (connections, requests) =>
      alone.ask(
        { graph, photo: photo.path, atOnce: connections, photos: requests, warmUp: 10, timeLimitMs },
        answer,
      ),
  };
}

const answerOfServer = z.object({ label: z.string(), probabilities: z.record(z.string(), z.number()) });

/** A server that answers something else would be fast for no reason. */
async function tellAnswer(stage: Stage, name: string, url: string): Promise<void> {
  const body = new Uint8Array(await readFile(stage.photo.path));
  const response = await fetch(url, { method: 'POST', body, headers: { 'content-type': 'image/jpeg' } });
  const { label, probabilities } = answerOfServer.parse(await response.json());
  stage.say(`  ${name} answers ${label} ${(probabilities[label] ?? 0).toFixed(4)}`);
}

/** Each round measures every subject there and back. */
export async function measureInTurns(
  stage: Stage,
  subjects: readonly Subject[],
  requestsOf = (connections: number) =>
    (stage.options.quick ? 30 : 80) + (stage.options.quick ? 2 : 4) * connections,
): Promise<Measured> {
  const { runs } = stage.options;
  const measured: Measured = new Map();
  await warmUp(stage, subjects);
  for (let round = 0; round < runs; round++) {
    stage.say(`  round ${round + 1} of ${runs}`);
    for (const connections of connectionCounts) {
      const requests = requestsOf(connections);
      const bursts = new Map<string, Burst[]>(subjects.map(({ name }) => [name, []]));
      // There and back: a machine that grows slower meanwhile does so for everyone alike.
      for (const subject of [...subjects, ...subjects.toReversed()]) {
        bursts.get(subject.name)?.push(await subject.measure(connections, requests));
      }
      for (const [name, both] of bursts) note(measured, name, connections, joined(both));
    }
  }
  return measured;
}

/** What a server does once in its life (threads, compiled code) is no part of a burst; the same for everyone. */
async function warmUp(stage: Stage, subjects: readonly Subject[]): Promise<void> {
  const connections = Math.max(...connectionCounts);
  const requests = 3 * connections;
  stage.say(`  each is warmed up by ${requests} photos over ${connections} connections`);
  for (const subject of subjects) await subject.measure(connections, requests);
}

function joined(bursts: readonly Burst[]): Burst {
  const latenciesMs = bursts.flatMap((burst) => burst.latenciesMs);
  const seconds = bursts.reduce((sum, burst) => sum + burst.latenciesMs.length / burst.perSecond, 0);
  return { latenciesMs, perSecond: latenciesMs.length / seconds };
}

function note(
  measured: Measured,
  name: string,
  connections: number,
  { latenciesMs, perSecond }: Burst,
): void {
  const series = seriesOf(measured, name, connections);
  const p50 = median(latenciesMs);
  const p99 = quantile(latenciesMs, 0.99);
  series.p50.push(p50);
  series.p99.push(p99);
  series.perSecond.push(perSecond);
  series.tail.push(p99 / p50);
}

export function seriesOf(measured: Measured, name: string, connections: number): Series {
  const ofSubject = measured.get(name) ?? new Map<number, Series>();
  measured.set(name, ofSubject);
  const series = ofSubject.get(connections) ?? { p50: [], p99: [], perSecond: [], tail: [] };
  ofSubject.set(connections, series);
  return series;
}

function rowsOf(subjects: readonly Subject[], measured: Measured): Row[] {
  return subjects.flatMap(({ name }) =>
    connectionCounts.flatMap((connections) => {
      const { p50, p99, perSecond, tail } = seriesOf(measured, name, connections);
      const title = `${name}, ${connections} at once`;
      const tailGoal = name === 'predict' ? { atMost: 2 } : undefined;
      return [
        row(`${title}: throughput`, 'photos/s', summarise(perSecond)),
        row(`${title}: p50`, 'ms', summarise(p50)),
        row(`${title}: p99`, 'ms', summarise(p99)),
        row(`${title}: p99 / p50`, 'x', summarise(tail), tailGoal),
      ];
    }),
  );
}

function comparisons([predict, ...others]: readonly Subject[], measured: Measured): Row[] {
  if (predict === undefined) return [];
  return others.flatMap(({ name }) =>
    connectionCounts.flatMap((connections) => {
      const ours = seriesOf(measured, predict.name, connections);
      const theirs = seriesOf(measured, name, connections);
      const goal = name === 'FastAPI' || name === 'FastAPI inline' ? goals[connections] : undefined;
      const title = `predict / ${name}, ${connections} at once`;
      return [
        row(`${title}: p50`, 'x', ratioOf(ours.p50, theirs.p50), goal?.p50),
        row(`${title}: throughput`, 'x', ratioOf(ours.perSecond, theirs.perSecond), goal?.perSecond),
      ];
    }),
  );
}

async function memoryRow({ name, memory }: Subject): Promise<Row[]> {
  if (memory === undefined) return [];
  const goal = name === 'predict' ? { atMost: 250 } : undefined;
  return [row(`${name}: resident after load`, 'MB', summarise([await memory()]), goal)];
}
