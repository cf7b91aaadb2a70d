import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import sharp from 'sharp';
import { z } from 'zod';
import { augmentPhoto } from '../../vision/augment.ts';
import { answerQuestions } from './worker.ts';

const question = z.object({
  graph: z.string(),
  photos: z.array(z.string()),
  size: z.number(),
  batch: z.number(),
});

/**
 * Photos to features with sharp and onnxruntime alone, as a script would do it: no store, no checks, no statistics.
 * It decodes the next photos while it infers on these.
 */
answerQuestions(question, async ({ graph, photos, size, batch }) => {
  const startedAt = performance.now();
  const session = await InferenceSession.create(graph, {
    intraOpNumThreads: Math.min(4, availableParallelism()),
    // As fast on an idle machine, and much faster on a busy one: spinning threads would take decoding's time.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  });
  const decode = (paths: string[]) => Promise.all(paths.map((path) => decodeOne(path, size)));
  let vectors = 0;
  let decoding = decode(photos.slice(0, batch));
  for (let start = 0; start < photos.length; start += batch) {
    const decoded = await decoding;
    decoding = decode(photos.slice(start + batch, start + 2 * batch));
    const pixels = Buffer.concat([...decoded, ...decoded.map((photo) => augmentPhoto(photo, size))]);
    const rows = pixels.length / (size * size * 3);
    const image = new Tensor('uint8', pixels, [rows, size, size, 3]);
    const { features } = await session.run({ image }, ['features']);
    vectors += features?.dims[0] ?? 0;
  }
  await session.release();
  return { vectors, durationMs: performance.now() - startedAt };
});

async function decodeOne(path: string, size: number): Promise<Buffer> {
  return sharp(await readFile(path))
    .rotate()
    .resize(size, size, { fit: 'cover', kernel: 'linear' })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer();
}
