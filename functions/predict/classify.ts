import { randomUUID } from 'node:crypto';
import { type Problem, toProblem } from '../../shared/errors.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import type { LoadedModel } from './models.ts';
import type { NotedRequest } from './prediction-log.ts';

/** The answer for one photo. */
export interface Prediction {
  /** Names the answer in the prediction log and in feedback. */
  id: string;
  label: string;
  probabilities: Record<string, number>;
}

/**
 * Decodes and classifies one photo.
 *
 * @throws DandelionError what `decodePhoto` throws
 */
export async function classifyPhoto(
  model: LoadedModel,
  bytes: Uint8Array,
  noted: NotedRequest,
): Promise<Prediction> {
  const photo = await decodePhoto(bytes, { size: model.inputSize });
  const answering = model.answer(photo.pixels);
  // While the engine works in its own threads.
  const input = noted.measure(photo);
  const answer = await answering;
  const id = randomUUID();
  noted.answered(id, model.record, answer, input);
  const { scores } = answer;
  const { classes } = model.record;
  const best = scores.indexOf(Math.max(...scores));
  return {
    id,
    label: classes[best] ?? '',
    probabilities: Object.fromEntries(classes.map((label, index) => [label, scores[index] ?? 0])),
  };
}

/** Classifies several photos; one that cannot be read gets its problem and spoils nothing for the others. */
export function classifyPhotos(
  model: LoadedModel,
  photos: readonly Uint8Array[],
  noted: NotedRequest,
): Promise<(Prediction | { problem: Problem })[]> {
  return Promise.all(
    photos.map((bytes) =>
      classifyPhoto(model, bytes, noted).catch((error: unknown) => {
        noted.ended(error, model.record.version);
        return { problem: toProblem(error) };
      }),
    ),
  );
}
