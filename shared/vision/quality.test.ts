import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { decodePhoto } from './decode.ts';
import { drawnClasses, drawPhoto } from './drawn.ts';
import { assessPhoto } from './quality.ts';

const assess = async (bytes: Buffer) => assessPhoto(await decodePhoto(bytes));

const flat = (background: string, width = 300, height = 200) =>
  sharp({ create: { width, height, channels: 3, background } })
    .png()
    .toBuffer();

describe('assessPhoto', () => {
  test.each(drawnClasses)('finds nothing wrong with an ordinary photo (%s)', async (label) => {
    for (let seed = 0; seed < 5; seed++) {
      expect((await assess(await drawPhoto(label, seed))).flags).toEqual([]);
    }
  });

  test('flags a photo too small to be looked at', async () => {
    const photo = await drawPhoto('dandelion', 1);
    const small = await sharp(photo).resize(80, 60).png().toBuffer();
    expect((await assess(small)).flags).toContain('too-small');
    const enough = await sharp(photo).resize(86, 64).png().toBuffer();
    expect((await assess(enough)).flags).not.toContain('too-small');
  });

  test('flags a blank photo as blank, not as blurred', async () => {
    expect((await assess(await flat('#408040'))).flags).toEqual(['blank']);
  });

  test('flags black and white', async () => {
    expect((await assess(await flat('#000000'))).flags).toEqual(['too-dark', 'blank']);
    expect((await assess(await flat('#ffffff'))).flags).toEqual(['too-bright', 'blank']);
  });

  test('flags blur', async () => {
    const photo = await sharp(await drawPhoto('dandelion', 1))
      .blur(8)
      .png()
      .toBuffer();
    expect((await assess(photo)).flags).toEqual(['blurred']);
  });

  test('measures what it says, in the units it says', async () => {
    const { statistics } = await assess(await flat('#ff8000', 300, 200));
    expect(statistics).toMatchObject({ aspectRatio: 1.5, shortSide: 200, contrast: 0, sharpness: 0 });
    expect(statistics.meanRed).toBeCloseTo(1);
    expect(statistics.meanGreen).toBeCloseTo(128 / 255);
    expect(statistics.meanBlue).toBeCloseTo(0);
    expect(statistics.saturation).toBeCloseTo(1);
    expect(statistics.brightness).toBeCloseTo((0.299 * 255 + 0.587 * 128) / 255);
  });

  test('gives finite numbers for the smallest photo', async () => {
    const photo = await decodePhoto(await flat('#408040', 1, 1), { size: 1 });
    expect(Object.values(assessPhoto(photo).statistics).every(Number.isFinite)).toBe(true);
  });

  test('orders by light, contrast and sharpness', async () => {
    const photo = await drawPhoto('daisy', 3);
    const plain = (await assess(photo)).statistics;
    const darker = (await assess(await sharp(photo).linear(0.5).png().toBuffer())).statistics;
    const softer = (await assess(await sharp(photo).blur(2).png().toBuffer())).statistics;
    expect(darker.brightness).toBeLessThan(plain.brightness);
    expect(darker.contrast).toBeLessThan(plain.contrast);
    expect(softer.sharpness).toBeLessThan(plain.sharpness);
  });
});
