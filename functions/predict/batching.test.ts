import { describe, expect, it } from 'vitest';
import { createBatcher } from './batching.ts';

/** A classifier whose two scores are the photo's first byte and the size of its batch, and that can be held up. */
function slowClassifier() {
  const batches: number[] = [];
  let release = () => {};
  const run = async (pixels: Uint8Array, photos: number) => {
    batches.push(photos);
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    const length = pixels.length / photos;
    return Float32Array.from({ length: photos * 2 }, (_, index) =>
      index % 2 === 0 ? (pixels[(index / 2) * length] ?? 0) : photos,
    );
  };
  return { run, batches, release: () => release() };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('micro-batching', () => {
  it('runs a lone photo at once and those that pile up meanwhile together', async () => {
    const engine = slowClassifier();
    const { classify } = createBatcher(engine.run, 8);
    const answers = [1, 2, 3, 4].map((value) => classify(Uint8Array.of(value, value)));
    await settle();
    expect(engine.batches).toEqual([1]);
    engine.release();
    await settle();
    expect(engine.batches).toEqual([1, 3]);
    engine.release();
    expect((await Promise.all(answers)).map(([first]) => first)).toEqual([1, 2, 3, 4]);
  });

  it('never exceeds the largest batch', async () => {
    const engine = slowClassifier();
    const { classify } = createBatcher(engine.run, 2);
    const answers = [1, 2, 3, 4, 5].map((value) => classify(Uint8Array.of(value)));
    for (let round = 0; round < 3; round++) {
      await settle();
      engine.release();
    }
    await Promise.all(answers);
    expect(engine.batches).toEqual([1, 2, 2]);
  });

  it('fails the photos of a failed batch and goes on with the next', async () => {
    let runs = 0;
    const { classify } = createBatcher(async (_pixels, photos) => {
      runs += 1;
      if (runs === 1) throw new Error('engine trouble');
      return new Float32Array(photos);
    }, 8);
    await expect(classify(Uint8Array.of(1))).rejects.toThrow('engine trouble');
    await expect(classify(Uint8Array.of(2))).resolves.toHaveLength(1);
  });
});
