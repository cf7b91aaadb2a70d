import sharp from 'sharp';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { type DrawnClass, drawPhoto } from '../vision/drawn.ts';
import { seededRandom } from '../vision/random.ts';

/** A photo of the stream, what it shows, and what the model said. */
export interface AnsweredPhoto {
  bytes: Buffer;
  truth: DrawnClass;
  answer: z.infer<typeof answerSchema>;
}

const answerSchema = z.object({
  id: z.string(),
  label: z.string(),
  model: z.object({ name: z.string(), version: z.string() }),
});

const classes: readonly DrawnClass[] = ['dandelion', 'grass'];
const AT_ONCE = 4;
/** Far from the seeds of the photos that are trained on. */
const FIRST_SEED = 1_000_000;

/** How the camera sees after the change: out of focus, in the dusk. */
const DUSK = { blurPixels: 2.5, brightness: 0.4 } as const;

/** Photos as they come in, the same for the same seed. */
export interface PhotoStream {
  /** Draws the next photos and has the model that serves answer them. */
  ask(count: number, light: 'day' | 'dusk'): Promise<AnsweredPhoto[]>;
}

/** @param gatewayUrl where predict is asked, as anyone would */
export function openPhotoStream(gatewayUrl: string, seed: number): PhotoStream {
  const random = seededRandom(seed);
  let next = FIRST_SEED + seed * 100_000;

  const ask = async (light: 'day' | 'dusk'): Promise<AnsweredPhoto> => {
    const truth = classes[Math.floor(random() * classes.length)] ?? 'dandelion';
    next += 1;
    const drawn = await drawPhoto(truth, next);
    const bytes = light === 'day' ? drawn : await atDusk(drawn);
    return { bytes, truth, answer: await predict(gatewayUrl, bytes) };
  };
  return {
    async ask(count, light) {
      const answered: AnsweredPhoto[] = [];
      while (answered.length < count) {
        const together = Math.min(AT_ONCE, count - answered.length);
        answered.push(...(await Promise.all(Array.from({ length: together }, () => ask(light)))));
      }
      return answered;
    },
  };
}

function atDusk(photo: Buffer): Promise<Buffer> {
  const { blurPixels, brightness } = DUSK;
  return sharp(photo).blur(blurPixels).modulate({ brightness }).jpeg({ quality: 85 }).toBuffer();
}

async function predict(gatewayUrl: string, bytes: Buffer): Promise<AnsweredPhoto['answer']> {
  const response = await fetch(`${gatewayUrl}/function/predict/`, {
    method: 'POST',
    headers: { 'content-type': 'image/jpeg' },
    body: new Uint8Array(bytes),
  });
  const text = await response.text();
  if (response.ok) return answerSchema.parse(JSON.parse(text));
  throw new DandelionError('upstream-unavailable', `predict answered ${response.status}: ${text}`);
}

/** Share of the photos that were answered rightly. */
export function accuracyOf(photos: readonly AnsweredPhoto[]): number {
  return photos.filter(({ truth, answer }) => answer.label === truth).length / Math.max(1, photos.length);
}
