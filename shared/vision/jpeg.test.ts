import sharp from 'sharp';
import { beforeAll, describe, expect, test } from 'vitest';
import { drawPhoto } from './drawn.ts';
import { decodePlainJpeg, loadJpegTurbo, sizeOfPlainJpeg } from './jpeg.ts';

let photo: Buffer;
beforeAll(async () => {
  await loadJpegTurbo();
  photo = await drawPhoto('dandelion', 3);
});

describe('sizeOfPlainJpeg', () => {
  test('tells the size of baseline, progressive and grey JPEGs', async () => {
    expect(sizeOfPlainJpeg(photo)).toEqual({ width: 400, height: 300 });
    const progressive = await sharp(photo).jpeg({ progressive: true }).toBuffer();
    expect(sizeOfPlainJpeg(progressive)).toEqual({ width: 400, height: 300 });
    const grey = await sharp(photo).greyscale().jpeg().toBuffer();
    expect(sizeOfPlainJpeg(grey)).toEqual({ width: 400, height: 300 });
  });

  test.each([
    ['an EXIF orientation', () => sharp(photo).withMetadata({ orientation: 6 }).jpeg().toBuffer()],
    ['a colour profile', () => sharp(photo).withIccProfile('p3').jpeg().toBuffer()],
    ['four inks', () => sharp(photo).toColourspace('cmyk').jpeg().toBuffer()],
    ['another format', () => sharp(photo).png().toBuffer()],
  ])('leaves a photo with %s to libvips', async (_name, make) => {
    expect(sizeOfPlainJpeg(await make())).toBeUndefined();
  });

  test('says nothing of a header that is cut off anywhere, and never fails', () => {
    const scan = photo.indexOf(Buffer.from([0xff, 0xda]));
    for (let length = 0; length < scan; length++) {
      expect(sizeOfPlainJpeg(photo.subarray(0, length))).toBeUndefined();
    }
  });
});

describe('decodePlainJpeg', () => {
  test('gives the pixels libvips gives, but for the rounding of its fast transform', async () => {
    const image = decodePlainJpeg(photo, { width: 400, height: 300 });
    const expected = await sharp(photo).raw().toBuffer();
    expect(image).toMatchObject({ width: 400, height: 300 });
    let largest = 0;
    for (let pixel = 0; pixel < 400 * 300; pixel++) {
      for (let channel = 0; channel < 3; channel++) {
        const difference = (image?.data[pixel * 4 + channel] ?? 0) - (expected[pixel * 3 + channel] ?? 0);
        largest = Math.max(largest, Math.abs(difference));
      }
    }
    expect(largest).toBeLessThanOrEqual(8);
  });

  test('leaves damaged and large photos to libvips', async () => {
    expect(
      decodePlainJpeg(photo.subarray(0, photo.length >> 1), { width: 400, height: 300 }),
    ).toBeUndefined();
    const large = await sharp(photo).resize(1200, 900).jpeg().toBuffer();
    expect(decodePlainJpeg(large, { width: 1200, height: 900 })).toBeUndefined();
  });
});
