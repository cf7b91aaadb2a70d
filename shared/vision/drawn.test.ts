import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { drawnClasses, drawPhoto } from './drawn.ts';

describe('drawPhoto', () => {
  test('draws a 400 x 300 JPEG unless told otherwise', async () => {
    const metadata = await sharp(await drawPhoto('dandelion', 1)).metadata();
    expect(metadata).toMatchObject({ format: 'jpeg', width: 400, height: 300, channels: 3 });
  });

  test.each(drawnClasses)(
    'gives the same bytes for the same seed and others for the next (%s)',
    async (label) => {
      const photos = await Promise.all([drawPhoto(label, 7), drawPhoto(label, 7), drawPhoto(label, 8)]);
      expect(photos[0]).toEqual(photos[1]);
      expect(photos[0]).not.toEqual(photos[2]);
    },
  );

  test.each(['jpeg', 'png', 'webp', 'avif', 'gif'] as const)(
    'encodes %s in the size asked for',
    async (format) => {
      const metadata = await sharp(
        await drawPhoto('tulip', 3, { width: 121, height: 64, format }),
      ).metadata();
      expect(metadata.format).toBe(format === 'avif' ? 'heif' : format);
      expect([metadata.width, metadata.height]).toEqual([121, 64]);
    },
  );

  test('draws any size, for any seed', async () => {
    for (let seed = 0; seed < 12; seed++) {
      const [width, height] = [1 + seed * 9, 100 - seed * 9];
      const metadata = await sharp(await drawPhoto('clover', seed - 3, { width, height })).metadata();
      expect([metadata.width, metadata.height]).toEqual([width, height]);
    }
  });

  test('shows more yellow in dandelions than in grass', async () => {
    const share = async (label: 'dandelion' | 'grass') => {
      let yellow = 0;
      for (let seed = 0; seed < 10; seed++) {
        const pixels = await sharp(await drawPhoto(label, seed))
          .raw()
          .toBuffer();
        for (let at = 0; at < pixels.length; at += 3) {
          const [red = 0, green = 0, blue = 0] = pixels.subarray(at, at + 3);
          if (red > 170 && green > 120 && blue < 70) yellow++;
        }
      }
      return yellow;
    };
    expect(await share('dandelion')).toBeGreaterThan(5 * (await share('grass')));
  });
});
