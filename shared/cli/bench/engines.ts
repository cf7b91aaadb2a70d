import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { type Precision, precisions } from '../../config.ts';
import { DandelionError } from '../../errors.ts';
import { graphKey, loadBackbone } from '../../stores/backbones.ts';
import { openObjects } from '../../stores/objects.ts';
import type { EnginePreference } from '../../vision/engine.ts';
import { isNativeInstalled } from '../../vision/tensorflow.ts';
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
  prefer: EnginePreference;
  threads: number;
}

/** The backbone as it was converted once, in a file. */
interface ConvertedBackbone {
  precision: Precision;
  path: string;
}

/** The backbone in both precisions on each engine that this machine has, in turns, each in a process of its own. */
export async function measureEngines(stage: Stage): Promise<Row[]> {
  const { options } = stage;
  const backbones = await convertBackbones(stage);
  const threads = Math.min(4, availableParallelism());
  const contenders: Contender[] = [
    ...[...new Set([1, threads])].map((count) => ({ prefer: 'onnxruntime' as const, threads: count })),
    { prefer: 'wasm', threads: 1 },
  ];
  if (isNativeInstalled()) contenders.push({ prefer: 'tfjs-node', threads: 1 });
  else stage.say('@tensorflow/tfjs-node is not installed and not measured.');
  const measured = new Map<string, Series>();
  for (let round = 0; round < options.runs; round++) {
    for (const contender of contenders) {
      for (const backbone of backbones) await measureOnce(stage, contender, { backbone, measured });
    }
  }
  return rowsOf(measured);
}

/** @throws DandelionError `bad-config` where there is no backbone */
async function convertBackbones({ model, options, say }: Stage): Promise<ConvertedBackbone[]> {
  const folder = join(options.dataDir, 'objects');
  const uri = process.env.BACKBONE_URI;
  const log = { info: () => {}, warn: (_fields: unknown, sentence?: string) => say(sentence ?? '') };
  const found = new Map<string, ConvertedBackbone>();
  for (const precision of precisions) {
    const converted =
      model.extractor.digest === null
        ? undefined
        : await loadBackbone(openObjects({ OBJECTS_DIR: folder }), { uri }, { log, precision });
    // A ready graph is the same in any precision.
    if (converted === undefined || found.has(converted.id)) continue;
    found.set(converted.id, { precision, path: join(folder, graphKey(converted.id)) });
  }
  if (found.size > 0) return [...found.values()];
  throw new DandelionError(
    'bad-config',
    'The model has no graph to run on engines: it was trained on classical features. Let preprocess fetch the backbone.',
  );
}

async function measureOnce(
  stage: Stage,
  contender: Contender,
  { backbone, measured }: { backbone: ConvertedBackbone; measured: Map<string, Series> },
): Promise<void> {
  const { options, photo } = stage;
  const { precision, path } = backbone;
  const photos = options.quick ? 16 : 64;
  const worker: Worker = startWorker('engine-worker.ts');
  try {
    const question = { ...contender, graph: path, photo: photo.path, photos };
    const { name, ...found } = await worker.ask(question, answer);
    const threads = contender.threads === 1 ? '1 thread' : `${contender.threads} threads`;
    const title = `${name} ${precision}, ${threads}`;
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
