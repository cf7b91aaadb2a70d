import { cp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { request } from 'undici';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';
import { createEvent, type Event, parseEventData } from '../../events.ts';
import { decodeEvents, encodeBinary } from '../../function/cloudevents.ts';
import type { BenchName } from './options.ts';
import { peakMegabytes } from './resident.ts';
import { type Scratch, withScratch } from './scratch.ts';
import { startBundle } from './server-process.ts';
import type { Stage } from './stage.ts';
import { ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker, type Worker } from './worker.ts';

/** Photos a batch of the bare script, each with its augmented view: what was fastest on two cores. */
const bareBatch = 8;
const model = 'measured';

/** What one pass through the steps took. */
interface Pass {
  photos: number;
  ingestMs: number;
  preprocessMs?: number;
  bareMs?: number;
  trainMs?: number;
  trainPeakMegabytes?: number;
}

/** The steps one after another on empty stores, as often as there are runs; each a process, each fed by its event. */
export async function measurePipeline(stage: Stage, wanted: ReadonlySet<BenchName>): Promise<Row[]> {
  const server = startWorker('photo-worker.ts');
  try {
    const { port } = await server.ask({ photos: stage.photos }, z.object({ port: z.number() }));
    const passes: Pass[] = [];
    for (let run = 0; run < stage.options.runs; run++) {
      stage.say(`  round ${run + 1} of ${stage.options.runs}`);
      passes.push(await withScratch(stage, (scratch) => pass(stage, scratch, { port, run, wanted })));
    }
    return rowsOf(passes, wanted);
  } finally {
    await server.close();
  }
}

async function pass(
  stage: Stage,
  scratch: Scratch,
  { port, run, wanted }: { port: number; run: number; wanted: ReadonlySet<BenchName> },
): Promise<Pass> {
  const host = `127.0.0.1:${port}`;
  const env = await withBackbone(stage, { ...scratch.env, INGEST_ALLOWED_HOSTS: host });
  const requested = createEvent({
    type: 'dev.dandelion.retrain.requested.v1',
    source: '/bench',
    id: String(run),
    data: { model, source: { kind: 'manifest', uri: `http://${host}/manifest.csv` }, seed: 1 },
  });
  const step = (name: string, event: Event) => runStep(stage, name, event, env);

  const ingested = await step('ingest', requested);
  const { images } = parseEventData(ingested.result, 'dev.dandelion.images.ingested.v1');
  const done: Pass = { photos: images, ingestMs: ingested.durationMs };
  if (!needsOneOf(wanted, 'preprocess', 'train', 'memory')) return done;

  const before = await embedBare(stage, scratch, images, wanted);
  const preprocessed = await step('preprocess', ingested.result);
  done.preprocessMs = preprocessed.durationMs;
  // Before and after: a machine that grows slower meanwhile does so for both alike.
  const after = await embedBare(stage, scratch, images, wanted);
  if (before !== undefined && after !== undefined) done.bareMs = (before + after) / 2;
  if (!needsOneOf(wanted, 'train', 'memory')) return done;

  const trained = await step('train', preprocessed.result);
  return { ...done, trainMs: trained.durationMs, trainPeakMegabytes: trained.peakMegabytes };
}

function needsOneOf(wanted: ReadonlySet<BenchName>, ...names: BenchName[]): boolean {
  return names.some((name) => wanted.has(name));
}

/** The backbone is not fetched anew each time: that would measure the network. */
async function withBackbone({ model: { extractor }, options }: Stage, env: Scratch['env']) {
  if (extractor.digest === null) return { ...env, BACKBONE_URI: 'none' };
  const backbones = join(options.dataDir, 'objects/backbones');
  await cp(backbones, join(env.OBJECTS_DIR ?? '', 'backbones'), { recursive: true });
  return env;
}

/** Starts a step's process and sends it the event; the time is that of the request alone. */
async function runStep(
  stage: Stage,
  name: string,
  event: Event,
  env: Scratch['env'],
): Promise<{ result: Event; durationMs: number; peakMegabytes: number }> {
  const { distDir } = stage.options;
  const server = await startBundle(name, { distDir, env, logsDir: stage.logsDir });
  try {
    const { headers, body } = encodeBinary(event);
    const startedAt = performance.now();
    const response = await request(server.url, { method: 'POST', headers, body, headersTimeout: 0 });
    const answer = Buffer.from(await response.body.arrayBuffer());
    const durationMs = performance.now() - startedAt;
    const [result] = decodeEvents(response.headers, answer)?.events ?? [];
    if (response.statusCode === 200 && result !== undefined) {
      return { result, durationMs, peakMegabytes: await peakMegabytes(server.processId) };
    }
    throw new DandelionError(
      'bad-result',
      `${name} answered ${response.statusCode} ${answer.toString().slice(0, 500)}`,
    );
  } finally {
    await server.stop();
  }
}

async function embedBare(
  stage: Stage,
  { env }: Scratch,
  photos: number,
  wanted: ReadonlySet<BenchName>,
): Promise<number | undefined> {
  const { extractor, preprocessing } = stage.model;
  if (!wanted.has('preprocess') || extractor.digest === null) return undefined;
  const objects = env.OBJECTS_DIR ?? '';
  const images = join(objects, 'images');
  const paths = (await readdir(images)).map((name) => join(images, name));
  const graph = join(objects, 'backbones', extractor.id, 'backbone.onnx');
  const worker: Worker = startWorker('bare-worker.ts');
  try {
    const question = { graph, photos: paths, size: preprocessing.size, batch: bareBatch };
    const answer = z.object({ vectors: z.number(), durationMs: z.number() });
    const { vectors, durationMs } = await worker.ask(question, answer);
    if (vectors === 2 * photos) return durationMs;
    throw new DandelionError('internal', `${vectors} vectors of ${photos} photos and their augmented views.`);
  } finally {
    await worker.close();
  }
}

function rowsOf(passes: readonly Pass[], wanted: ReadonlySet<BenchName>): Row[] {
  const rows: Row[] = [];
  const perSecond = (pick: (pass: Pass) => number | undefined) =>
    passes.flatMap((done) => {
      const durationMs = pick(done);
      return durationMs === undefined ? [] : [(done.photos / durationMs) * 1000];
    });
  if (wanted.has('ingest')) {
    rows.push(
      row('ingest, from a server on this machine', 'photos/s', summarise(perSecond((done) => done.ingestMs))),
    );
  }
  if (wanted.has('preprocess')) {
    const ours = perSecond((done) => done.preprocessMs);
    const bare = perSecond((done) => done.bareMs);
    rows.push(row('preprocess', 'photos/s', summarise(ours)));
    if (bare.length > 0) {
      rows.push(row('sharp + onnxruntime alone', 'photos/s', summarise(bare)));
      rows.push(row('preprocess / sharp + onnxruntime alone', 'x', ratioOf(ours, bare), { atLeast: 0.8 }));
    }
  }
  const numbers = (pick: (pass: Pass) => number | undefined) => passes.flatMap((done) => pick(done) ?? []);
  if (wanted.has('train')) {
    const seconds = numbers((done) => done.trainMs).map((durationMs) => durationMs / 1000);
    rows.push(row('train, on stored features', 's', summarise(seconds)));
  }
  if (wanted.has('memory')) {
    rows.push(
      row('train: resident at its peak', 'MB', summarise(numbers((done) => done.trainPeakMegabytes))),
    );
  }
  return rows;
}
