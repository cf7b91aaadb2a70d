import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { decodePhoto } from '../../vision/decode.ts';
import { type Engine, openEngine } from '../../vision/engine.ts';
import { answerQuestions } from './worker.ts';

const question = z.object({
  graph: z.string(),
  photo: z.string(),
  /** Photos worked on at a time. */
  atOnce: z.number().int().positive(),
  photos: z.number().int().positive(),
  warmUp: z.number().int().nonnegative(),
  timeLimitMs: z.number().positive(),
});

let opened: { graph: string; engine: Engine } | undefined;

/** Decodes and classifies one photo again and again: what a server's answer costs without the server. */
answerQuestions(question, async ({ graph, photo, atOnce, photos, warmUp, timeLimitMs }) => {
  if (opened?.graph !== graph) opened = { graph, engine: await openEngine(await readFile(graph)) };
  const { engine } = opened;
  const bytes = await readFile(photo);
  const classify = async () => {
    const { pixels } = await decodePhoto(bytes, { size: engine.inputSize });
    await engine.run(pixels, 1);
  };
  for (let index = 0; index < warmUp; index++) await classify();
  const latenciesMs: number[] = [];
  const startedAt = performance.now();
  let begun = 0;
  const work = async () => {
    while (begun < photos && performance.now() - startedAt < timeLimitMs) {
      begun += 1;
      const begin = performance.now();
      await classify();
      latenciesMs.push(performance.now() - begin);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return { latenciesMs, perSecond: (latenciesMs.length / (performance.now() - startedAt)) * 1000 };
});
