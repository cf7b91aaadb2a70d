import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { decodePhoto } from '../../vision/decode.ts';
import { type Engine, type EngineOptions, enginePreferences, openEngine } from '../../vision/engine.ts';
import { answerQuestions } from './worker.ts';

const question = z.object({
  graph: z.string(),
  photo: z.string(),
  prefer: z.enum(enginePreferences),
  threads: z.number().int().positive(),
  /** Photos one by one, and as many again in one call. */
  photos: z.number().int().positive(),
});

const WARM_UP = 3;

let opened: { engine: Engine; openMs: number } | undefined;

/** One engine in a process of its own: the kernel alone, a photo from its bytes to the answer, and many at once. */
answerQuestions(question, async ({ graph, photo, prefer, threads, photos }) => {
  opened ??= await open(graph, { prefer, threads });
  const { engine, openMs } = opened;
  const bytes = await readFile(photo);
  const { pixels } = await decodePhoto(bytes, { size: engine.inputSize });
  const many = Buffer.concat(Array.from({ length: photos }, () => pixels));
  for (let index = 0; index < WARM_UP; index++) await engine.run(pixels, 1);
  const kernelMs = await timesOf(photos, () => engine.run(pixels, 1));
  const photoMs = await timesOf(photos, async () => {
    const decoded = await decodePhoto(bytes, { size: engine.inputSize });
    await engine.run(decoded.pixels, 1);
  });
  const [manyMs = Number.NaN] = await timesOf(1, () => engine.run(many, photos));
  return { name: engine.name, openMs, kernelMs, photoMs, perSecond: (photos / manyMs) * 1000 };
});

async function open(graph: string, options: EngineOptions) {
  const bytes = await readFile(graph);
  const startedAt = performance.now();
  const engine = await openEngine(bytes, options);
  return { engine, openMs: performance.now() - startedAt };
}

async function timesOf(count: number, work: () => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const startedAt = performance.now();
    await work();
    times.push(performance.now() - startedAt);
  }
  return times;
}
