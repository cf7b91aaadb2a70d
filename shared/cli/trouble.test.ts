import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { zipOf } from '../../functions/ingest/fixtures.ts';
import { drawFolder, quickPipelineEnv } from '../local/testing-pipelines.ts';
import { openDatabase } from '../stores/database.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { endStarted, runStart } from './testing-start.ts';

let base: string;
let env: Record<string, string>;
let photo: Buffer;
let folder: string;
let database: TestDatabase;

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'dandelion-trouble-'));
  env = await quickPipelineEnv(base);
  await drawFolder(join(base, 'photos'), { dandelion: 12, grass: 12 }, 1);
  photo = await readFile(join(base, 'photos/grass/0000.jpg'));
});
beforeEach(async () => {
  folder = await mkdtemp(join(base, 'run-'));
  database = await testDatabase();
});
afterEach(endStarted);
afterEach(() => database.drop());
afterAll(() => rm(base, { recursive: true, force: true }));

const at = (...path: string[]) => join(folder, ...path);
const photos = () => join(base, 'photos');

async function run(words: string[], more: Record<string, string> = {}) {
  const done = await runStart(folder, words, { ...env, DATABASE_URL: database.url, ...more });
  // Whatever happens, people read sentences.
  expect(done.output).not.toMatch(/^\s+at .*:\d+/m);
  return done;
}

/** What a run that could not be done says: in the terminal, in the report, by its exit code. */
async function expectRefusal(
  words: string[],
  expected: { exit: number; code: string; sentence: RegExp },
  more: Record<string, string> = {},
) {
  const { code, output, report } = await run(words, more);
  expect([code, output]).toEqual([expected.exit, expect.stringMatching(expected.sentence)]);
  expect(report).toMatchObject({
    ok: false,
    champion: null,
    error: { code: expected.code, detail: expect.stringMatching(expected.sentence) },
  });
}

async function manifest(text: string): Promise<string[]> {
  await writeFile(at('list.csv'), text);
  return ['--manifest', at('list.csv')];
}

/** A PNG of one bit a pixel, all of one colour: few bytes, many pixels. */
function widePng(side: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const ends = [Buffer.alloc(4), Buffer.alloc(4)] as const;
    ends[0].writeUInt32BE(data.length);
    ends[1].writeUInt32BE(crc32(body));
    return Buffer.concat([ends[0], body, ends[1]]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header[8] = 1;
  const rows = deflateSync(Buffer.alloc(side * (1 + side / 8)));
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', rows),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

describe('photos that are none, among good ones', () => {
  test('are left out, each with its reason, and the rest is trained on', async () => {
    const bad: Record<string, Buffer | string> = {
      'cut.jpg': photo.subarray(0, photo.length / 2),
      'drawing.svg': '<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x.png"/></svg>',
      'empty.jpg': '',
      'page.png': '<!doctype html><html><body>404</body></html>',
      'text.jpg': 'no image at all',
      'wide.png': widePng(20_000),
    };
    const files = Object.entries(bad).map(([name, bytes]) => ({ name, bytes: Buffer.from(bytes) }));
    const names = ['dandelion', 'grass'].flatMap((label) =>
      Array.from({ length: 12 }, (_, index) => `${label}/${String(index).padStart(4, '0')}.jpg`),
    );
    const good = names.map(async (name) => ({ name, bytes: await readFile(join(photos(), name)) }));
    const packed = [
      ...(await Promise.all(good)),
      ...files.map(({ name, bytes }) => ({ name: `grass/${name}`, bytes })),
      { name: '../outside.jpg', bytes: photo },
      { name: '/etc/outside.jpg', bytes: photo },
      { name: 'grass/link.jpg', linkTo: '/etc/passwd' },
      { name: 'gr\u00fcn!/photo.jpg', bytes: photo },
    ];
    await writeFile(at('photos.zip'), zipOf(packed));
    const { code, output, report } = await run(['--archive', at('photos.zip')]);
    expect([code, output]).toEqual([0, expect.stringContaining('photos were left out')]);
    expect(report).toMatchObject({
      ok: true,
      dataset: { images: 24, classes: { dandelion: 12, grass: 12 } },
    });
    const reasons = new Map(report?.dataset?.rejected.map(({ source, reason }) => [source, reason]));
    expect(reasons.size).toBe(10);
    expect(reasons.get('grass/cut.jpg')).toMatch(/cut off/);
    expect(reasons.get('grass/drawing.svg')).toMatch(/SVG/);
    expect(reasons.get('grass/empty.jpg')).toMatch(/no bytes/);
    expect(reasons.get('grass/page.png')).toMatch(/HTML/);
    expect(reasons.get('grass/text.jpg')).toMatch(/text/);
    expect(reasons.get('grass/wide.png')).toMatch(/20000 x 20000/);
    expect(reasons.get('gr\u00fcn!/photo.jpg')).toMatch(/label/);
    expect(await readdir(base)).not.toContain('outside.jpg');
  });
});

describe('photos that cannot be trained on end with 2', () => {
  test.each([
    ['no header', 'a.jpg,dandelion\nb.jpg,grass\n', 'bad-manifest', /must be the header url,label/],
    ['nothing in it', '', 'bad-manifest', /is empty; its first line must be url,label/],
    [
      'dead links alone',
      'url,label\nhttp://127.0.0.1:9/a.jpg,dandelion\nhttp://127.0.0.1:9/b.jpg,grass\n',
      'no-images',
      /refused the connection/,
    ],
  ])('a manifest with %s', async (_name, text, code, sentence) => {
    await expectRefusal(await manifest(text), { exit: 2, code, sentence });
  });

  test('a class of too few photos; nothing but the photos is left behind', async () => {
    await mkdir(at('photos/daisy'), { recursive: true });
    for (const label of ['dandelion', 'grass']) {
      await mkdir(at('photos', label));
      for (const name of await readdir(join(photos(), label))) {
        await writeFile(at('photos', label, name), await readFile(join(photos(), label, name)));
      }
    }
    await writeFile(at('photos/daisy/one.jpg'), photo.subarray(0, 500));
    const sentence = /needs 10 usable photos or more: "daisy" has 0/;
    await expectRefusal(['--images', at('photos')], { exit: 2, code: 'too-few-images', sentence });
    const db = await openDatabase(database.url);
    const [left] = await db`
      select (select count(*)::int from images) as images, (select count(*)::int from datasets) as datasets`;
    expect(left).toEqual({ images: 24, datasets: 0 });
    const objects = await readdir(at('data/objects'), { recursive: true, withFileTypes: true });
    const kept = objects.filter((entry) => entry.isFile()).map(({ name }) => name);
    expect(kept).toHaveLength(24);
  });
});

test('a model that the gate refuses ends with 3', async () => {
  // Two classes of the same kind of photo: nothing can tell them apart.
  await drawFolder(at('alike'), { grass: 16 }, 300);
  await rename(at('alike/grass'), at('alike/lawn'));
  await drawFolder(at('alike'), { grass: 16 }, 400);
  await expectRefusal(
    ['--images', at('alike')],
    { exit: 3, code: 'model-rejected', sentence: /accuracy/ },
    { GATE_MIN_ACCURACY: '0.95' },
  );
});

test('a wrong setting of one function ends with 2 when its turn comes, and names it', async () => {
  const sentence =
    /evaluate did not start: [^:]*: evaluate cannot start: [^:]*: GATE_MIN_ACCURACY: [^.]*1\. Its log/;
  await expectRefusal(
    ['--images', photos()],
    { exit: 2, code: 'bad-config', sentence },
    { GATE_MIN_ACCURACY: '1.01' },
  );
});

describe('a machine that is set up wrong ends with 2 before anything starts', () => {
  test('a database that does not answer; its password stays secret', async () => {
    const url = 'postgres://dandelion:hunter2@127.0.0.1:9/flowers';
    const sentence = /PostgreSQL at 127\.0\.0\.1:9\/flowers does not answer .* Check DATABASE_URL/;
    await expectRefusal(
      ['--images', photos()],
      { exit: 2, code: 'bad-config', sentence },
      { DATABASE_URL: url },
    );
    const { output } = await run(['--images', photos()], { DATABASE_URL: url });
    expect(output).not.toContain('hunter2');
  });

  test('a database of another kind', async () => {
    const sentence = /DATABASE_URL: use postgres:\/\//;
    const url = 'mysql://dandelion@127.0.0.1:9/flowers';
    await expectRefusal(
      ['--images', photos()],
      { exit: 2, code: 'bad-config', sentence },
      { DATABASE_URL: url },
    );
  });

  test('a data folder that cannot be written to', async () => {
    await writeFile(at('file'), '');
    const sentence = /The data folder .* cannot be used: .* choose another one with --data/;
    const words = ['--images', photos(), '--data', at('file/data')];
    await expectRefusal(words, { exit: 2, code: 'bad-config', sentence });
  });

  test('a report that cannot be written, known before the work', async () => {
    await writeFile(at('file'), '');
    for (const path of [at('file/report.json'), base]) {
      const { code, output } = await run(['--images', photos(), '--json', path]);
      expect(code).toBe(2);
      expect(output.trim()).toMatch(/^The report cannot be written to .* Choose another file with --json\.$/);
    }
    expect(await readdir(folder)).toEqual(['file']);
  });

  test('an option that there is not', async () => {
    const sentence = /Unknown option '--imges'.*--help.* lists the options/;
    await expectRefusal(['--imges', photos()], { exit: 2, code: 'bad-config', sentence });
  });
});
