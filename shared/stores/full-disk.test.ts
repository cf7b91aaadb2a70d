import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openObjects } from './objects.ts';
import { mountSmallDisk, type SmallDisk } from './testing-disk.ts';
import { openTracker } from './tracking.ts';

let base: string;
let disk: SmallDisk | undefined;
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'dandelion-full-'));
  disk = await mountSmallDisk(join(base, 'disk'));
});
afterEach(async () => {
  await disk?.remove();
  await rm(base, { recursive: true, force: true });
});

const trouble = (store: string) => ({
  code: 'store-unavailable',
  message: expect.stringMatching(new RegExp(`The ${store} at .*disk.* failed: ENOSPC`)),
});
const bytes = Buffer.alloc(100_000, 1);

test('an object store on a full disk says so, keeps what it has whole, and goes on when there is space', async (context) => {
  if (disk === undefined) return context.skip();
  const objects = openObjects({ OBJECTS_DIR: join(disk.folder, 'objects') });
  await objects.put('models/first', bytes);
  await disk.fill(50_000);
  await expect(objects.put('models/second', bytes)).rejects.toMatchObject(trouble('object store'));
  await expect(objects.put('models/first', Buffer.alloc(200_000))).rejects.toMatchObject(
    trouble('object store'),
  );
  await expect(objects.putIf('champion', bytes, { etag: null })).rejects.toMatchObject(
    trouble('object store'),
  );
  await disk.fill();
  await expect(objects.putIf('other/champion', bytes, { etag: null })).rejects.toMatchObject(
    trouble('object store'),
  );
  expect((await objects.get('models/first')).bytes.equals(bytes)).toBe(true);
  expect(await objects.head('models/second')).toBeUndefined();
  expect(await readdir(join(disk.folder, 'objects/.drafts'))).toEqual([]);
  await disk.empty();
  await objects.put('models/second', bytes);
  expect(await objects.putIf('champion', bytes, { etag: null })).toMatchObject({ won: true });
  expect(await objects.putIf('other/champion', bytes, { etag: null })).toMatchObject({ won: true });
});

test('a tracking store on a full disk says so, and goes on when there is space', async (context) => {
  if (disk === undefined) return context.skip();
  const tracker = openTracker({ TRACKING_DIR: join(disk.folder, 'tracking') });
  const name = { experiment: 'plants', runId: 'plants-v1', runName: 'v1', tags: {} };
  const point = { key: 'loss', value: 1, step: 0 };
  const run = await tracker.startRun(name);
  await run.logMetrics([point]);
  await disk.fill();
  const calls = [
    () => run.logParams({ text: 'x'.repeat(20_000) }),
    () => run.logMetrics(Array.from({ length: 200 }, (_, step) => ({ ...point, step }))),
    () => run.logArtifact('card.md', bytes),
    () => tracker.setAlias('plants', 'champion', { version: 'v1', runId: name.runId }),
    () => tracker.startRun({ ...name, runId: 'plants-v2' }),
  ];
  for (const call of calls) await expect(call()).rejects.toMatchObject(trouble('tracking store'));
  await disk.empty();
  for (const call of calls) await call();
});
