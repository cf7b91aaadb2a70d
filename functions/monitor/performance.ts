import type { Database } from '../../shared/stores/database.ts';
import { measureLiveAccuracy } from '../../shared/stores/feedback.ts';
import { readEvaluation } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { Performance } from '../../shared/vision/drift.ts';

/**
 * How often a version was right on its test split, and by reviewed feedback since.
 *
 * @param leastReviewed 0: is not asked for
 * @returns undefined until so much feedback on the version was reviewed
 */
export async function measurePerformance(
  { db, objects }: { db: Database; objects: ObjectStore },
  { model, version }: { model: string; version: string },
  leastReviewed: number,
): Promise<Performance | undefined> {
  if (leastReviewed === 0) return undefined;
  const [evaluation, versions] = await Promise.all([
    readEvaluation(objects, model, version),
    measureLiveAccuracy(db, model),
  ]);
  const live = versions.find((candidate) => candidate.version === version);
  if (evaluation === undefined || live === undefined || live.reviewed < leastReviewed) return undefined;
  const { confusion } = evaluation;
  return {
    tested: { right: sum(confusion.map((row, i) => row[i] ?? 0)), total: sum(confusion.flat()) },
    reviewed: { right: live.correct, total: live.reviewed },
  };
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
