import { z } from 'zod';
import { openDatabase } from '../../stores/database.ts';
import { readFeatures } from '../../stores/features.ts';
import { answerQuestions } from './worker.ts';

const question = z.object({
  url: z.string(),
  dataset: z.object({ model: z.string(), version: z.string(), split: z.enum(['train']) }),
  extractor: z.object({ id: z.string(), dimension: z.number() }),
});

/** Reads a split as training does. `emptyMegabytes` is what was resident before. */
answerQuestions(question, async ({ url, dataset, extractor }) => {
  const db = await openDatabase(url);
  try {
    const emptyMegabytes = process.memoryUsage().rss / 1e6;
    const startedAt = performance.now();
    const { sha256 } = await readFeatures(db, dataset, extractor);
    return { photos: sha256.length, readMs: performance.now() - startedAt, emptyMegabytes };
  } finally {
    await db.end({ timeout: 5 });
  }
});
