import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readOptions, reportPathIn } from './options.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-options-'));
  await mkdir(join(folder, 'photos'));
  await writeFile(join(folder, 'list.csv'), 'url,label\n');
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const read = (...words: string[]) => readOptions(words, {});
const at = (name: string) => join(folder, name);

describe('the options of npm start', () => {
  test('have defaults', async () => {
    expect(await read()).toEqual({
      source: { kind: 'default' },
      dataDir: resolve('.data'),
      port: 8080,
      once: false,
      mlflow: false,
      json: undefined,
      model: 'dandelion',
    });
  });

  test('name the photos in one of four ways', async () => {
    expect(await read('--images', at('photos'))).toMatchObject({
      source: { kind: 'images', path: at('photos') },
    });
    expect(await read('--manifest', at('list.csv'))).toMatchObject({
      source: { kind: 'manifest', path: at('list.csv') },
    });
    expect(await read('--manifest=https://example.org/list.csv')).toMatchObject({
      source: { kind: 'manifest', url: new URL('https://example.org/list.csv') },
    });
    expect(await read('--archive', at('list.csv'))).toMatchObject({ source: { kind: 'archive' } });
    expect(await read('--sample')).toMatchObject({ source: { kind: 'sample' } });
  });

  test('take the model name from the command line, then from MODEL_NAME', async () => {
    expect(await readOptions([], { MODEL_NAME: 'meadow' })).toMatchObject({ model: 'meadow' });
    expect(await readOptions(['--model', 'lawn'], { MODEL_NAME: 'meadow' })).toMatchObject({ model: 'lawn' });
  });

  test('ask for help', async () => {
    expect(await read('--help')).toBe('help');
  });

  test.each([
    [['--bogus'], /Unknown option '--bogus'/],
    [['photos'], /Unexpected argument 'photos'/],
    [['--images'], /--images/],
    [['--images', '/no/such/folder'], /there is no such folder/],
    [['--images', import.meta.filename], /is not a folder/],
    [['--manifest', import.meta.dirname], /is not a file/],
    [['--manifest', 'http://'], /is not an address/],
    [['--sample', '--images', import.meta.dirname], /--images and --sample/],
    [['--port', '70000'], /--port 70000/],
    [['--port', 'http'], /--port http/],
    [['--model', 'Two Words'], /no name for a model/],
    [['--data', ''], /--data needs a value/],
  ])('%j are refused', async (words, message) => {
    await expect(read(...words)).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringMatching(message),
    });
  });

  test('name the report even when the rest is wrong', () => {
    expect(reportPathIn(['--bogus', '--json', '/tmp/report.json', 'x'])).toBe('/tmp/report.json');
    expect(reportPathIn(['--bogus'])).toBeUndefined();
  });
});
