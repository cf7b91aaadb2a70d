import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { contactSheet } from './contact-sheet.ts';
import { drawPhoto } from './drawn.ts';
import { evaluateClassifier } from './metrics.ts';
import { calibrationPicture, confusionPicture, rocPicture } from './pictures.ts';

/** Numbers of pixels of a drawn file that are nearly of one colour, as a renderer of SVG sees it. */
async function pixelsNear(svg: Uint8Array, [red, green, blue]: [number, number, number]): Promise<number> {
  const { data } = await sharp(svg)
    .flatten({ background: '#fff' })
    .raw()
    .toBuffer({ resolveWithObject: true });
  let found = 0;
  for (let i = 0; i < data.length; i += 3) {
    const distance =
      Math.abs((data[i] ?? 0) - red) +
      Math.abs((data[i + 1] ?? 0) - green) +
      Math.abs((data[i + 2] ?? 0) - blue);
    if (distance < 24) found += 1;
  }
  return found;
}

const right: [number, number, number] = [0, 114, 178];
const wrong: [number, number, number] = [213, 94, 0];

describe('the picture of a confusion matrix', () => {
  test('colours right answers and wrong ones, and names the classes', async () => {
    const picture = confusionPicture(
      [
        [5, 0],
        [4, 0],
      ],
      ['R & D', 'grass'],
      'five right, four wrong',
    );
    const cell = 96 * 96;
    expect(await pixelsNear(picture, right)).toBeGreaterThan(0.8 * cell);
    expect(await pixelsNear(picture, wrong)).toBeGreaterThan(0.8 * cell);
    expect(picture.toString()).toContain('R &amp; D');
  });

  test('can be drawn of two hundred classes', async () => {
    const classes = Array.from({ length: 200 }, (_, index) => `class ${index}`);
    const confusion = classes.map((_, row) => classes.map((_, column) => (row === column ? 3 : 0)));
    const { width = 0, height = 0 } = await sharp(confusionPicture(confusion, classes, 'many')).metadata();
    expect(Math.max(width, height)).toBeLessThan(1000);
  });
});

test('the picture of ROC curves has a line a class and its area', async () => {
  const probabilities = Float32Array.from([0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.6, 0.4]);
  const { roc } = evaluateClassifier(probabilities, Int32Array.from([0, 0, 1, 1]), ['dandelion', 'grass'], {
    seed: 1,
  });
  const picture = rocPicture(roc, 'title');
  expect(picture.toString().match(/<polyline/g)).toHaveLength(2);
  expect(picture.toString()).toContain('dandelion  1.000');
  expect(await pixelsNear(picture, right)).toBeGreaterThan(300);
});

test('the legend of curves holds a long name with its area', async () => {
  const label = 'W'.repeat(40);
  const picture = rocPicture(
    {
      [label]: {
        auc: 1,
        curve: [
          [0, 0],
          [0, 1],
          [1, 1],
        ],
      },
    },
    'ROC',
  );
  expect(picture.toString()).toContain('…  1.000');
  const { data, info } = await sharp(picture)
    .flatten()
    .greyscale()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const edge = Array.from({ length: info.height }, (_, y) => data[(y + 1) * info.width * info.channels - 1]);
  expect(new Set(edge)).toEqual(new Set([255]));
});

test('the reliability diagram has the shares of both its axes', () => {
  const picture = calibrationPicture(
    [{ upTo: 1, photos: 3, confidence: 0.9, accuracy: 1 }],
    'Calibration',
  ).toString();
  expect(picture.match(/>0\.25</g)).toHaveLength(2);
});

describe('the sheet of photos that were answered wrongly', () => {
  test('shows each with its class and the answer', async () => {
    const mistakes = await Promise.all(
      [1, 2, 3].map(async (seed) => ({
        bytes: await drawPhoto('dandelion', seed),
        label: 'dandelion',
        answer: 'grass',
        confidence: 0.934,
      })),
    );
    const sheet = await contactSheet(mistakes, '3 answered wrongly');
    const text = sheet.toString();
    expect(text.match(/<image /g)).toHaveLength(3);
    expect(text.match(/is dandelion/g)).toHaveLength(3);
    expect(text.match(/said grass 93 %/g)).toHaveLength(3);
    const thumbnail = Buffer.from(/base64,([^"]+)/.exec(text)?.[1] ?? '', 'base64');
    expect(await sharp(thumbnail).metadata()).toMatchObject({ format: 'jpeg', width: 180, height: 180 });
  });

  test('says so when there are none', async () => {
    const sheet = await contactSheet([], '0 answered wrongly');
    expect(sheet.toString()).toContain('0 answered wrongly');
    expect((await sharp(sheet).metadata()).height).toBeGreaterThan(0);
  });
});
