import { describe, expect, it } from 'vitest';
import { corruptions, corruptPhoto } from './corruptions.ts';
import { decodePhoto } from './decode.ts';
import { drawPhoto } from './drawn.ts';

const side = 96;
const { pixels } = await decodePhoto(await drawPhoto('dandelion', 3), { size: side });

function mean(values: Uint8Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

describe('corruptPhoto', () => {
  it.each(corruptions)(
    'changes a photo and not its size, the same way each time (%s)',
    async (corruption) => {
      const [once, again] = await Promise.all([
        corruptPhoto(pixels, side, corruption),
        corruptPhoto(pixels, side, corruption),
      ]);
      expect(once).toHaveLength(pixels.length);
      expect(Buffer.from(once).equals(again)).toBe(true);
      const changed = pixels.filter((value, at) => Math.abs(value - (once[at] ?? 0)) > 2).length;
      expect(changed / pixels.length).toBeGreaterThan(0.1);
    },
  );

  it('does what its name says', async () => {
    const [dark, bright, grey, covered] = await Promise.all(
      (['dark', 'bright', 'grey', 'covered'] as const).map((name) => corruptPhoto(pixels, side, name)),
    );
    expect(mean(dark ?? pixels) / mean(pixels)).toBeCloseTo(0.35, 1);
    expect(mean(bright ?? pixels)).toBeGreaterThan(mean(pixels) * 1.2);
    const colours = [...(grey ?? pixels)].filter((value, at, all) => value !== all[at - (at % 3)]);
    expect(colours).toHaveLength(0);
    expect([...(covered ?? pixels).subarray(0, 3)]).toEqual([128, 128, 128]);
    expect((covered ?? pixels).slice(-300)).toEqual(Buffer.from(pixels.slice(-300)));
  });
});
