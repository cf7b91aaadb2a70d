import { describe, expect, it } from 'vitest';
import { backboneGraph } from './backbone.ts';
import { embedDecoded } from './embedding.ts';
import { openEngine } from './engine.ts';
import { decodeOnnx, encodeOnnx, floatTensor } from './onnx.ts';
import { seededRandom } from './random.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from './random-backbone.ts';

const random = seededRandom(5);
const { inputSize: size } = SMALL_ARCHITECTURE;
const photo = () => ({ pixels: Uint8Array.from({ length: size * size * 3 }, () => random() * 256) });

describe('embedDecoded', () => {
  it('gives features of each photo, and others of its augmented view, whatever photos come with it', async () => {
    const engine = await openEngine(
      backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 7), { architecture: SMALL_ARCHITECTURE }),
    );
    const photos = [photo(), photo(), photo()];
    const together = await embedDecoded(engine, photos);
    const alone = await embedDecoded(engine, photos.slice(1, 2));
    await engine.close();
    for (const of of ['vectors', 'augmented'] as const) {
      expect(together[of]).toHaveLength(3);
      const [one = new Float32Array(), same = new Float32Array(1)] = [together[of][1], alone[of][0]];
      expect(one).toHaveLength(engine.featureDimension);
      expect(Math.max(...one.map((value, i) => Math.abs(value - (same[i] ?? 0))))).toBeLessThan(1e-5);
    }
    expect(together.vectors).not.toEqual(together.augmented);
  });

  it('names a backbone whose features are no numbers', async () => {
    const model = decodeOnnx(
      backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 7), { architecture: SMALL_ARCHITECTURE }),
    );
    const spoilt = floatTensor('pixel_scale', [], Float32Array.of(Number.NaN));
    model.graph.initializer = model.graph.initializer.map((tensor) =>
      tensor.name === spoilt.name ? spoilt : tensor,
    );
    const engine = await openEngine(encodeOnnx(model));
    await expect(embedDecoded(engine, [photo()])).rejects.toMatchObject({ code: 'model-broken' });
    await engine.close();
  });
});
