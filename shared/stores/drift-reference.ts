import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { classLabel, modelVersion } from '../events.ts';
import type { ObservedPhoto } from '../vision/drift.ts';
import type { ObjectStore } from './objects.ts';

/**
 * `models/{name}/{version}/reference.json`: what photos and answers were like when the model was trained. By columns,
 * all as long as `labels`.
 */
export const driftReference = z.object({
  schemaVersion: z.literal(1),
  version: modelVersion,
  dataset: z.string(),
  /** Image statistics by name. */
  statistics: z.record(z.string(), z.array(z.number())),
  /** What the model answered, or would have had it not been trained on the photo, and how sure it was. */
  labels: z.array(classLabel),
  confidences: z.array(z.number()),
  sketches: z.object({ id: z.string(), rows: z.array(z.array(z.number())) }),
});
export type DriftReference = z.infer<typeof driftReference>;

const keyOf = (name: string, version: string) => `models/${name}/${version}/reference.json`;

/** Writes photos as the reference of a model. */
export async function writeReference(
  objects: ObjectStore,
  name: string,
  reference: DriftReference,
): Promise<void> {
  await objects.put(keyOf(name, reference.version), Buffer.from(JSON.stringify(reference)));
}

/**
 * Reads the reference of a model, sketches only where they are made as `sketchId` says.
 *
 * @returns undefined for a model that was trained before there were references
 * @throws DandelionError `model-broken` when it cannot be read
 */
export async function readReference(
  objects: ObjectStore,
  name: string,
  version: string,
  sketchId: string,
): Promise<ObservedPhoto[] | undefined> {
  const found = await objects.get(keyOf(name, version)).catch((error: unknown) => {
    if (error instanceof DandelionError && error.code === 'object-missing') return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  try {
    return photosOf(driftReference.parse(JSON.parse(found.bytes.toString('utf8'))), sketchId);
  } catch (cause) {
    const key = keyOf(name, version);
    throw new DandelionError('model-broken', `"${key}" cannot be read; it was written by another program.`, {
      cause,
    });
  }
}

function photosOf({ statistics, labels, confidences, sketches }: DriftReference, sketchId: string) {
  const columns = Object.entries(statistics);
  return labels.map((label, row) => ({
    statistics: Object.fromEntries(columns.map(([name, column]) => [name, column[row] ?? 0])),
    label,
    confidence: confidences[row] ?? 0,
    sketch: sketches.id === sketchId ? (sketches.rows[row] ?? null) : null,
  }));
}
