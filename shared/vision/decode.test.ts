import { crc32, deflateSync } from 'node:zlib';
import fc from 'fast-check';
import sharp, { type Color } from 'sharp';
import { describe, expect, test } from 'vitest';
import { DandelionError } from '../errors.ts';
import { decodePhoto, photoFormats, readPhotoHeader } from './decode.ts';
import { drawPhoto } from './drawn.ts';

/** A photo whose quarters differ, so that a turn or a mirror shows. */
const quarters = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: '#c02020' } }).composite([
    { input: block(width / 2, height / 2, '#20a020'), left: width / 2, top: 0 },
    { input: block(width / 2, height / 2, '#2020c0'), left: 0, top: height / 2 },
    { input: block(width / 2, height / 2, '#e0e020'), left: width / 2, top: height / 2 },
  ]);

const block = (width: number, height: number, background: string) => ({
  create: { width, height, channels: 3 as const, background },
});

const flat = (background: string | Color, width = 300, height = 200) =>
  sharp({ create: { width, height, channels: 3, background } });

function pixelAt(photo: { pixels: Uint8Array; size: number }, x: number, y: number): number[] {
  const at = (y * photo.size + x) * 3;
  return [...photo.pixels.subarray(at, at + 3)];
}

function meanDifference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((sum, value, index) => sum + Math.abs(value - (b[index] ?? 0)), 0) / a.length;
}

const failure = async (bytes: Uint8Array, options?: Parameters<typeof decodePhoto>[1]) => {
  const outcome = await decodePhoto(bytes, options).catch((error: unknown) => error);
  return outcome instanceof DandelionError ? outcome : undefined;
};

/** A PNG whose header claims a size its data do not have. */
function pngWithHeader(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const framed = Buffer.alloc(body.length + 8);
    framed.writeUInt32BE(data.length);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), body.length + 4);
    return framed;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  const data = chunk('IDAT', deflateSync(Buffer.alloc(1000)));
  return Buffer.concat([signature, chunk('IHDR', header), data, chunk('IEND', Buffer.alloc(0))]);
}

describe('decodePhoto', () => {
  test.each(photoFormats)('reads %s', async (format) => {
    const photo = await decodePhoto(await drawPhoto('dandelion', 1, { format }));
    expect(photo).toMatchObject({ format, width: 400, height: 300, size: 224 });
    expect(photo.pixels).toHaveLength(224 * 224 * 3);
    const lossless = await decodePhoto(await drawPhoto('dandelion', 1, { format: 'png' }));
    expect(meanDifference(photo.pixels, lossless.pixels)).toBeLessThan(14);
  });

  test('gives the same pixels for the same bytes', async () => {
    const bytes = await drawPhoto('clover', 5);
    const [one, other] = await Promise.all([decodePhoto(bytes), decodePhoto(bytes)]);
    expect(one.pixels).toEqual(other.pixels);
  });

  test.each([
    [400, 300],
    [300, 400],
    [2000, 1500],
    [1500, 2001],
    [50, 31],
  ])('keeps the aspect and cuts out the centre of %i x %i', async (width, height) => {
    const side = Math.min(width, height);
    const middle = flat('#ff0000', side, side).png().toBuffer();
    const bytes = await flat('#0000ff', width, height)
      .composite([{ input: await middle, gravity: 'centre' }])
      .png()
      .toBuffer();
    const photo = await decodePhoto(bytes, { size: 64 });
    for (const [x, y] of [
      [3, 3],
      [60, 3],
      [3, 60],
      [60, 60],
      [32, 32],
    ] as const) {
      expect(pixelAt(photo, x, y)).toEqual([255, 0, 0]);
    }
  });

  test('keeps flat colours exactly and covers the square, whatever the size of the photo', async () => {
    const sides = fc.integer({ min: 1, max: 700 });
    await fc.assert(
      fc.asyncProperty(sides, sides, fc.integer({ min: 1, max: 256 }), async (width, height, size) => {
        const bytes = await flat('#336699', width, height).png({ compressionLevel: 1 }).toBuffer();
        const photo = await decodePhoto(bytes, { size });
        expect(photo).toMatchObject({ width, height, size });
        expect(photo.pixels).toHaveLength(size * size * 3);
        expect(photo.pixels.every((value, at) => value === [0x33, 0x66, 0x99][at % 3])).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('turns EXIF orientation %i upright', async (orientation) => {
    const upright = await decodePhoto(await quarters(300, 200).png().toBuffer());
    // What a camera stores: the upright photo turned or mirrored the other way.
    const [turn, mirror] = (
      {
        1: [0, ''],
        2: [0, 'flop'],
        3: [180, ''],
        4: [0, 'flip'],
        5: [90, 'flop'],
        6: [270, ''],
        7: [90, 'flip'],
        8: [90, ''],
      } as const
    )[orientation] ?? [0, ''];
    const turned = sharp(await quarters(300, 200).png().toBuffer()).rotate(turn);
    const mirrored = sharp(await turned.png().toBuffer());
    if (mirror !== '') mirrored[mirror]();
    const stored = await mirrored.withMetadata({ orientation }).png().toBuffer();
    const photo = await decodePhoto(stored);
    expect([photo.width, photo.height]).toEqual([300, 200]);
    expect(meanDifference(photo.pixels, upright.pixels)).toBe(0);
  });

  test('turns a large JPEG upright on the path that shrinks while decoding', async () => {
    const upright = await decodePhoto(await quarters(1200, 1600).jpeg({ quality: 95 }).toBuffer());
    const sideways = await sharp(await quarters(1200, 1600).png().toBuffer())
      .rotate(270)
      .toBuffer();
    const photo = await decodePhoto(
      await sharp(sideways).withMetadata({ orientation: 6 }).jpeg({ quality: 95 }).toBuffer(),
    );
    expect([photo.width, photo.height]).toEqual([1200, 1600]);
    expect(meanDifference(photo.pixels, upright.pixels)).toBeLessThan(1);
  });

  test('takes the first frame of an animation', async () => {
    const frames = await Promise.all(['#ff0000', '#00ff00'].map((colour) => flat(colour).png().toBuffer()));
    const bytes = await sharp(frames, { join: { animated: true } })
      .gif()
      .toBuffer();
    expect((await sharp(bytes).metadata()).pages).toBe(2);
    const photo = await decodePhoto(bytes);
    expect([photo.width, photo.height]).toEqual([300, 200]);
    expect(pixelAt(photo, 100, 100)).toEqual([255, 0, 0]);
  });

  test('lays transparency on white', async () => {
    const clear = { r: 0, g: 0, b: 0, alpha: 0 };
    const half = { r: 0, g: 0, b: 255, alpha: 0.5 };
    for (const [background, expected] of [
      [clear, [255, 255, 255]],
      [half, [127, 127, 255]],
    ] as const) {
      const bytes = await sharp({ create: { width: 300, height: 200, channels: 4, background } })
        .png()
        .toBuffer();
      const pixel = pixelAt(await decodePhoto(bytes), 100, 100);
      pixel.forEach((value, channel) => {
        expect(Math.abs(value - (expected[channel] ?? -9))).toBeLessThanOrEqual(1);
      });
    }
  });

  test('makes three channels of grey, with and without alpha', async () => {
    const grey = await flat('#808080').toColourspace('b-w').png().toBuffer();
    expect((await sharp(grey).metadata()).channels).toBe(1);
    expect(pixelAt(await decodePhoto(grey), 50, 50)).toEqual([128, 128, 128]);
    const withAlpha = await flat('#808080').ensureAlpha(0).toColourspace('b-w').png().toBuffer();
    expect((await sharp(withAlpha).metadata()).channels).toBe(2);
    expect(pixelAt(await decodePhoto(withAlpha), 50, 50)).toEqual([255, 255, 255]);
  });

  test('brings CMYK to sRGB', async () => {
    const bytes = await flat('#d03030').toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
    expect((await sharp(bytes).metadata()).space).toBe('cmyk');
    const [red = 0, green = 0, blue = 0] = pixelAt(await decodePhoto(bytes), 100, 100);
    expect(red).toBeGreaterThan(150);
    expect(Math.max(green, blue)).toBeLessThan(110);
  });

  test('brings 16 bits a channel to 8, alpha included', async () => {
    const bytes = await flat('#336699').toColourspace('rgb16').png().toBuffer();
    expect((await sharp(bytes).metadata()).depth).toBe('ushort');
    expect(pixelAt(await decodePhoto(bytes), 100, 100)).toEqual([0x33, 0x66, 0x99]);
    const clear = await flat('#336699').ensureAlpha(0).toColourspace('rgb16').png().toBuffer();
    expect(pixelAt(await decodePhoto(clear), 100, 100)).toEqual([255, 255, 255]);
  });

  test('reads a palette', async () => {
    const bytes = await quarters(300, 200).png({ palette: true, colours: 8 }).toBuffer();
    expect((await sharp(bytes).metadata()).isPalette).toBe(true);
    const [red = 0, green = 255] = pixelAt(await decodePhoto(bytes), 30, 30);
    expect(red).toBeGreaterThan(150);
    expect(green).toBeLessThan(80);
  });

  test('reads a strip too long to be scaled as a whole', async () => {
    const photo = await decodePhoto(await flat('#336699', 2, 20_000).png().toBuffer());
    expect([photo.width, photo.height]).toEqual([2, 20_000]);
    expect(pixelAt(photo, 100, 100)).toEqual([0x33, 0x66, 0x99]);
  });
});

describe('what decodePhoto refuses', () => {
  test('no bytes at all', async () => {
    expect((await failure(new Uint8Array(0)))?.code).toBe('empty-file');
  });

  test.each([
    ['an HTML page', '\n  <!DOCTYPE html><html><body>404 Not Found</body></html>'],
    ['an HTML page', '<html lang="en">'],
    ['an SVG drawing', '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'],
    [
      'an SVG drawing',
      '<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    ],
    ['an XML document', '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    ['a JSON document', '{"message": "Not Found"}'],
    ['a PDF document', '%PDF-1.7\n'],
    ['a TIFF image', 'II*\0\x08\0\0\0'],
    ['a zip archive', 'PK\x03\x04\x14\0'],
    ['a HEIC photo', '\0\0\0\x18ftypheic\0\0\0\0mif1heic'],
    ['a video or audio file', '\0\0\0\x18ftypisom\0\0\0\0isommp42'],
    ['a Git LFS pointer', 'version https://git-lfs.github.com/spec/v1\n'],
    ['a text file', 'url,label\nphoto.jpg,dandelion\n'],
    ['a file of unknown kind', '\x01\x02\x03\x04\x05'],
  ])('%s, saying so', async (looksLike, text) => {
    const error = await failure(Buffer.from(text, 'latin1'));
    expect(error?.code).toBe('not-an-image');
    expect(error?.message).toContain(looksLike);
  });

  test('a real TIFF', async () => {
    const error = await failure(await flat('#336699').tiff().toBuffer());
    expect(error).toMatchObject({ code: 'not-an-image', message: expect.stringContaining('a TIFF image') });
  });

  const cuts = [0.02, 0.3, 0.6, 0.9, 0.97];
  const sizes = [
    [400, 300],
    [300, 400],
    [1200, 1600],
  ] as const;
  test.each(photoFormats)('a %s file cut off at any point', async (format) => {
    for (const [width, height] of sizes) {
      const whole = await drawPhoto('daisy', 2, { width, height, format });
      for (const cut of cuts) {
        const error = await failure(whole.subarray(0, Math.ceil(whole.length * cut)));
        expect(error?.code, `${width} x ${height} cut at ${cut}`).toBe('truncated-image');
      }
    }
  });

  test('a JPEG that lacks only its end marker', async () => {
    const whole = await drawPhoto('grass', 2, { width: 300, height: 400 });
    expect((await failure(whole.subarray(0, whole.length - 2)))?.code).toBe('truncated-image');
  });

  test('more pixels than allowed, judged from the header', async () => {
    const error = await failure(pngWithHeader(20_000, 20_000));
    expect(error?.code).toBe('too-many-pixels');
    expect(error?.message).toContain('20000 x 20000');
    const photo = await drawPhoto('grass', 1);
    expect((await failure(photo, { maxPixels: 400 * 300 - 1 }))?.code).toBe('too-many-pixels');
    expect(await failure(photo, { maxPixels: 400 * 300 })).toBeUndefined();
  });

  test('anything else with one of our errors, never with a crash', async () => {
    const signatures = [
      '\xff\xd8\xff',
      '\x89PNG\r\n\x1a\n',
      'GIF89a',
      'RIFF\x10\0\0\0WEBPVP8 ',
      '\0\0\0\x14ftypavif',
      '',
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...signatures),
        fc.uint8Array({ maxLength: 200 }),
        async (start, rest) => {
          const bytes = Buffer.concat([Buffer.from(start, 'latin1'), rest]);
          const code = (await failure(bytes))?.code;
          expect(['empty-file', 'not-an-image', 'truncated-image', 'too-many-pixels']).toContain(code);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('what decodePhoto puts up with', () => {
  test('bytes after the end of the photo', async () => {
    const bytes = await drawPhoto('grass', 4);
    const photo = await decodePhoto(Buffer.concat([bytes, Buffer.from('\0\0 appended by a camera')]));
    expect(photo.pixels).toEqual((await decodePhoto(bytes)).pixels);
  });

  test('stray bytes between the markers of a JPEG', async () => {
    const bytes = await drawPhoto('grass', 4);
    const stray = Buffer.concat([bytes.subarray(0, 2), Buffer.from([0xff, 0xff, 0xff]), bytes.subarray(2)]);
    expect(await failure(stray)).toBeUndefined();
  });
});

describe('readPhotoHeader', () => {
  test.each(photoFormats)('tells format and size of %s', async (format) => {
    const header = await readPhotoHeader(await drawPhoto('tulip', 1, { width: 120, height: 80, format }));
    expect(header).toEqual({ format, width: 120, height: 80 });
  });

  test('gives the size after orientation', async () => {
    const bytes = await flat('#336699').withMetadata({ orientation: 6 }).jpeg().toBuffer();
    expect(await readPhotoHeader(bytes)).toEqual({ format: 'jpeg', width: 200, height: 300 });
  });

  test('refuses what decodePhoto refuses', async () => {
    await expect(readPhotoHeader(new Uint8Array(0))).rejects.toMatchObject({ code: 'empty-file' });
    await expect(readPhotoHeader(Buffer.from('<html>'))).rejects.toMatchObject({ code: 'not-an-image' });
    await expect(readPhotoHeader(pngWithHeader(20_000, 20_000))).rejects.toMatchObject({
      code: 'too-many-pixels',
    });
  });
});
