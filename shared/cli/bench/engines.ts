import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { residentMegabytes } from './resident.ts';
import type { Stage } from './stage.ts';
import { median, ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker, type Worker } from './worker.ts';

const answer = z.object({
  name: z.string(),
  openMs: z.number(),
  kernelMs: z.array(z.number()),
  photoMs: z.array(z.number()),
  perSecond: z.number(),
});

/** One value a round. */
interface Series {
  openMs: number[];
  kernelMs: number[];
  photoMs: number[];
  perSecond: number[];
  residentMb: number[];
}

interface Contender {
  prefer: 'onnxruntime' | 'wasm';
  threads: number;
}

/** The serving graph on each engine that this machine has, in turns, each in a process of its own. */
export async function measureEngines(stage: Stage): Promise<Row[]> {
  const { model, options } = stage;
  if (!('serving.onnx' in model.files)) {
    throw new DandelionError(
      'bad-config',
      'The model has no graph to run on engines: it was trained on classical features. Let preprocess fetch the backbone.',
    );
  }
  const threads = Math.min(4, availableParallelism());
  // TensorFlow.js takes its native library where someone installed it, else WebAssembly: it says which.
  const contenders: Contender[] = [
    ...[...new Set([1, threads])].map((count) => ({ prefer: 'onnxruntime' as const, threads: count })),
    { prefer: 'wasm', threads: 1 },
  ];
  const measured = new Map<string, Series>();
  for (let round = 0; round < options.runs; round++) {
    for (const contender of contenders) await measureOnce(stage, contender, measured);
  }
  return rowsOf(measured);
}

async function measureOnce(stage: Stage, contender: Contender, measured: Map<string, Series>): Promise<void> {
  const { model, options, photo } = stage;
  const graph = join(options.dataDir, 'objects/models', model.name, model.version, 'serving.onnx');
  const photos = options.quick ? 16 : 64;
  const worker: Worker = startWorker('engine-worker.ts');
  try {
    const { name, ...found } = await worker.ask({ ...contender, graph, photo: photo.path, photos }, answer);
    const title = contender.prefer === 'wasm' ? name : `${name}, ${contender.threads} threads`;
    const series = measured.get(title) ?? newSeries();
    measured.set(title, series);
    series.openMs.push(found.openMs);
    series.kernelMs.push(median(found.kernelMs));
    series.photoMs.push(median(found.photoMs));
    series.perSecond.push(found.perSecond);
    series.residentMb.push(await residentMegabytes(worker.processId));
  } finally {
    await worker.close();
  }
}

function newSeries(): Series {
  return { openMs: [], kernelMs: [], photoMs: [], perSecond: [], residentMb: [] };
}

function rowsOf(measured: Map<string, Series>): Row[] {
  const first = [...measured.values()][0];
  return [...measured].flatMap(([name, series]) => [
    row(`${name}: open`, 'ms', summarise(series.openMs)),
    row(`${name}: one photo`, 'ms', summarise(series.kernelMs)),
    row(`${name}: one photo from its bytes`, 'ms', summarise(series.photoMs)),
    row(`${name}: many at once`, 'photos/s', summarise(series.perSecond)),
    row(`${name}: resident`, 'MB', summarise(series.residentMb)),
    ...(first === undefined || first === series
      ? []
      : [row(`${name} / first engine: one photo`, 'x', ratioOf(series.kernelMs, first.kernelMs))]),
  ]);
}
