/** Answers for one photo: its probabilities in the order of the model's classes. */
export type Classify = (pixels: Uint8Array) => Promise<Float32Array>;

interface Waiting {
  pixels: Uint8Array;
  resolve(probabilities: Float32Array): void;
  reject(error: unknown): void;
}

/**
 * Micro-batching without a timer: a photo that finds the engine idle is run at once; photos that arrive while it
 * works wait and are run together. An idle server therefore never waits for company.
 *
 * @param run classifies n photos laid end to end and returns n x classes probabilities
 */
export function createBatcher(
  run: (pixels: Uint8Array, photos: number) => Promise<Float32Array>,
  maxBatch: number,
): { classify: Classify } {
  const queue: Waiting[] = [];
  let working = false;

  const work = async () => {
    working = true;
    while (queue.length > 0) await runBatch(queue.splice(0, maxBatch));
    working = false;
  };

  const runBatch = async (batch: Waiting[]) => {
    try {
      const [only] = batch;
      const pixels =
        batch.length === 1 && only !== undefined
          ? only.pixels
          : Buffer.concat(batch.map((item) => item.pixels));
      const probabilities = await run(pixels, batch.length);
      const width = probabilities.length / batch.length;
      for (const [row, item] of batch.entries())
        item.resolve(probabilities.slice(row * width, (row + 1) * width));
    } catch (error) {
      for (const item of batch) item.reject(error);
    }
  };

  return {
    classify: (pixels) =>
      new Promise((resolve, reject) => {
        queue.push({ pixels, resolve, reject });
        if (!working) void work();
      }),
  };
}
