import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { classHeatmap, heatmapOverlay } from './heatmap.ts';

/** Three classes on 2 x 2 places. */
const heat = Float32Array.from([
  ...[4, 0, 1, -2], // the class to explain
  ...[0, 0, 3, 0], // its strongest rival
  ...[9, 9, 9, 9], // one that nobody thinks of
]);
const scores = [0.7, 0.25, 0.05];

describe('classHeatmap', () => {
  it('shows what speaks for the class rather than for its strongest rival, the strongest place as 1', () => {
    expect(classHeatmap(heat, scores, 0)).toEqual({ side: 2, values: Float32Array.of(1, 0, 0, 0) });
    const rival = classHeatmap(heat, scores, 1);
    expect([...rival.values]).toEqual([0, 0, 1, 1]);
  });

  it('shows nothing where nothing speaks for the class', () => {
    expect([...classHeatmap(new Float32Array(12), scores, 2).values]).toEqual([0, 0, 0, 0]);
  });
});

describe('heatmapOverlay', () => {
  it('is a picture that hides the photo only where the heat is', async () => {
    const png = heatmapOverlay({ side: 2, values: Float32Array.of(1, 0, 0, 0) });
    const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
    expect(info).toMatchObject({ channels: 4, width: 8, height: 8 });
    const alpha = (x: number, y: number) => data[(y * info.width + x) * 4 + 3] ?? 0;
    expect(alpha(0, 0)).toBeGreaterThan(150);
    expect(alpha(7, 7)).toBeLessThan(10);
  });
});
