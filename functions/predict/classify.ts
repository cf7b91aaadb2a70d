import { randomUUID } from 'node:crypto';
import { DandelionError, type Problem, toProblem } from '../../shared/errors.ts';
import { UNKNOWN } from '../../shared/events.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import type { PhotoAnswer } from '../../shared/vision/engine.ts';
import type { LoadedModel } from './models.ts';
import { withPhotoMemory } from './photo-memory.ts';
import type { NotedRequest } from './prediction-log.ts';

/** Why a photo got its label. */
export interface Explanation {
  /** The class that is explained: the likeliest one. */
  label: string;
  /** Rows of the square in the photo's middle that the model looked at, 0 to 1: what speaks for the class. */
  heat: number[][];
  /** The same as a PNG with transparency, a data URL to lay over that square. */
  overlay: string;
}

/** The answer for one photo. */
export interface Prediction {
  /** Names the answer in the prediction log and in feedback. */
  id: string;
  /** The likeliest class, or `unknown`. */
  label: string;
  probabilities: Record<string, number>;
  /** How like the photos of the nearest class it is (cosine of the features); absent where the model does not tell. */
  familiarity?: number;
  explanation?: Explanation;
}

/** Whether an answer comes with its explanation; `auto`: where the model can give one. */
export const explainChoices = ['true', 'auto', 'false'] as const;

export interface ClassifyOptions {
  explain?: (typeof explainChoices)[number];
}

/**
 * Decodes and classifies one photo.
 *
 * @throws DandelionError what `decodePhoto` throws; `explanation-unavailable`
 */
export async function classifyPhoto(
  model: LoadedModel,
  bytes: Uint8Array,
  noted: NotedRequest,
  { explain = 'false' }: ClassifyOptions = {},
): Promise<Prediction> {
  const run = explain === 'false' ? model.answer : explaining(model, explain);
  const size = model.inputSize;
  const { answer, input } = await withPhotoMemory(size * size * 3, async (memory) => {
    const photo = await decodePhoto(bytes, { size, memory });
    const answering = run(photo.pixels);
    // While the engine works in its own threads.
    return { input: noted.measure(photo), answer: await answering };
  });
  const id = randomUUID();
  noted.answered(id, model.record, answer, input);
  const { scores, familiarity } = answer;
  const { classes } = model.record;
  return {
    id,
    label: labelOf(model.record, answer),
    probabilities: Object.fromEntries(classes.map((label, index) => [label, scores[index] ?? 0])),
    ...(familiarity !== undefined && { familiarity }),
    ...(answer.heat && { explanation: await explained(classes, answer.heat, scores) }),
  };
}

/** The likeliest class; `unknown` for a photo that is less like all of them than the model's threshold says. */
export function labelOf(
  { classes, unknown }: Pick<LoadedModel['record'], 'classes' | 'unknown'>,
  { scores, familiarity }: Pick<PhotoAnswer, 'scores' | 'familiarity'>,
): string {
  if (unknown !== undefined && familiarity !== undefined && familiarity < unknown.threshold) return UNKNOWN;
  return classes[likeliest(scores)] ?? '';
}

function likeliest(scores: Float32Array): number {
  return scores.indexOf(Math.max(...scores));
}

function explaining(
  { record, explain, answer }: LoadedModel,
  wanted: 'true' | 'auto',
): LoadedModel['answer'] {
  if (explain !== undefined) return explain;
  if (wanted === 'auto') return answer;
  throw new DandelionError(
    'explanation-unavailable',
    `Model ${record.version} cannot say where it looked: it has no feature map. Train it again with a backbone, or leave explain out.`,
  );
}

async function explained(
  classes: readonly string[],
  heat: Float32Array,
  scores: Float32Array,
): Promise<Explanation> {
  // Only who is asked to explain pays for loading what draws.
  const { classHeatmap, heatmapOverlay } = await import('../../shared/vision/heatmap.ts');
  const label = likeliest(scores);
  const heatmap = classHeatmap(heat, scores, label);
  const overlay = heatmapOverlay(heatmap);
  const { side, values } = heatmap;
  return {
    label: classes[label] ?? '',
    heat: Array.from({ length: side }, (_, row) =>
      Array.from(values.subarray(row * side, (row + 1) * side), (value) => Math.round(value * 1000) / 1000),
    ),
    overlay: `data:image/png;base64,${overlay.toString('base64')}`,
  };
}

/** Classifies several photos; one that cannot be read gets its problem and spoils nothing for the others. */
export function classifyPhotos(
  model: LoadedModel,
  photos: readonly Uint8Array[],
  noted: NotedRequest,
  options: ClassifyOptions = {},
): Promise<(Prediction | { problem: Problem })[]> {
  return Promise.all(
    photos.map((bytes) =>
      classifyPhoto(model, bytes, noted, options).catch((error: unknown) => {
        noted.ended(error, model.record.version);
        return { problem: toProblem(error) };
      }),
    ),
  );
}
