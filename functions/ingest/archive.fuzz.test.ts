import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { fuzzing, isRefusal, mutated, settlesOrRefuses } from '../../shared/testing-fuzz.ts';
import type { SourceAccess } from './entries.ts';
import { accessWith, type PackedFile, tarOf, zipOf } from './fixtures.ts';
import { parseManifest } from './manifest-csv.ts';
import { openSource } from './source.ts';

let folder: string;
let access: SourceAccess;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-fuzz-'));
  const limits = { INGEST_MAX_PHOTO_BYTES: '5000', INGEST_MAX_UNPACKED_BYTES: '100000' };
  access = accessWith({ INGEST_FILE_ROOTS: folder, INGEST_MAX_ARCHIVE_ENTRIES: '50', ...limits });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const files: PackedFile[] = [
  { name: 'grass/a.jpg', bytes: Buffer.alloc(700, 'grass') },
  { name: 'grass/b.jpg', bytes: Buffer.alloc(20, 'b') },
  { name: 'dandelion/long-name-of-a-photo.jpg', bytes: Buffer.alloc(1500, 'photo') },
  { name: 'dandelion/link.jpg', linkTo: '../grass/a.jpg' },
];

/** Opens an archive and reads everything in it, as ingest does: each failure is one entry's or the source's. */
async function readWhole(bytes: Uint8Array): Promise<void> {
  const path = join(folder, 'archive');
  await writeFile(path, bytes);
  const source = await openSource({ kind: 'archive', uri: pathToFileURL(path).href }, access);
  try {
    for await (const entry of source.entries) {
      if (entry.kind === 'photo') await settlesOrRefuses(entry.open());
    }
  } finally {
    await source.close();
  }
}

describe.each<[string, () => Promise<Uint8Array>]>([
  ['zip', async () => zipOf(files)],
  ['tar', () => tarOf(files)],
  ['tar.gz', async () => gzipSync(await tarOf(files))],
])('a %s archive', (_kind, pack) => {
  test('with injuries is read or refused', async () => {
    const archive = mutated(fc.constant(await pack()));
    await fc.assert(
      fc.asyncProperty(archive, (bytes) => settlesOrRefuses(readWhole(bytes))),
      fuzzing(400),
    );
  });

  test('of which only the head is right is read or refused', async () => {
    const packed = await pack();
    const archive = fc
      .tuple(fc.integer({ min: 2, max: 600 }), fc.uint8Array({ maxLength: 2000 }))
      .map(([kept, rest]) => Buffer.concat([packed.subarray(0, kept), rest]));
    await fc.assert(
      fc.asyncProperty(archive, (bytes) => settlesOrRefuses(readWhole(bytes))),
      fuzzing(200),
    );
  });
});

test('names of any characters in a zip or tar archive are read or refused', async () => {
  const name = fc.oneof(
    fc.string({ unit: 'binary', minLength: 1, maxLength: 80 }),
    fc.constantFrom(
      '../a.jpg',
      '/etc/a.jpg',
      'C:\\a.jpg',
      'a\\..\\b.jpg',
      './/a.jpg',
      'grass/\0.jpg',
      '...',
      '.',
    ),
  );
  const packed = fc.array(
    name.map((text) => ({ name: text, bytes: Buffer.from('photo') })),
    { minLength: 1, maxLength: 5 },
  );
  await fc.assert(
    fc.asyncProperty(packed, (entries) => settlesOrRefuses(readWhole(zipOf(entries)))),
    fuzzing(200),
  );
  const short = packed.filter((entries) => entries.every((entry) => Buffer.byteLength(entry.name) < 90));
  await fc.assert(
    fc.asyncProperty(short, async (entries) => settlesOrRefuses(readWhole(await tarOf(entries)))),
    fuzzing(200),
  );
});

test('an injured manifest is read or refused', () => {
  const manifest = [
    'url,label',
    'https://example.org/a.jpg,grass',
    '"b, c.jpg","dandelion"',
    'ü.jpg,grass',
    '',
  ].join('\r\n');
  fc.assert(
    fc.property(mutated(fc.constant(Buffer.from(manifest))), (bytes) => {
      try {
        parseManifest(bytes);
      } catch (error) {
        if (!isRefusal(error)) throw error;
      }
    }),
    fuzzing(2000),
  );
});
