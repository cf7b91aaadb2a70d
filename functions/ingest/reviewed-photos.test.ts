import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEvent } from '../../shared/events.ts';
import { invoke } from '../../shared/function/testing.ts';
import type { FunctionModule } from '../../shared/function/types.ts';
import { listCandidates } from '../../shared/stores/datasets.ts';
import { findFeedback, saveFeedback, settleFeedback } from '../../shared/stores/feedback.ts';
import { imageKey, listRejections } from '../../shared/stores/images.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import { inspectPhoto } from '../../shared/vision/photo-facts.ts';
import { handler, init } from './handler.ts';
import type { IngestResult } from './settle.ts';

// Without `shutdown`, which closes every database of the process, the test's own among them.
const step: FunctionModule = { handler, init, durable: true };
const size = { width: 160, height: 120 };

let stores: TestStores;
let folder: string;

beforeEach(async () => {
  stores = await testStores();
  folder = join(stores.directory, 'plants');
  for (const label of ['dandelion', 'grass'] as const) {
    await mkdir(join(folder, label), { recursive: true });
    for (let seed = 0; seed < 12; seed++) {
      await writeFile(join(folder, label, `${seed}.jpg`), await drawPhoto(label, seed, size));
    }
  }
});
afterEach(() => stores.drop());

async function ingest(id: string): Promise<IngestResult> {
  const source = { kind: 'folder' as const, uri: pathToFileURL(folder).href };
  const type = 'dev.dandelion.retrain.requested.v1';
  const event = createEvent({ type, source: '/test', id, data: { model: 'plants', source, seed: 7 } });
  const env = { ...stores.env, INGEST_FILE_ROOTS: stores.directory };
  const invoked = await invoke(step, { name: 'ingest', event, env });
  expect(invoked.problem).toBeUndefined();
  return invoked.event?.data as IngestResult;
}

/** Feedback with a photo, accepted as the function `feedback` does it; returns the photo's digest. */
async function accept(bytes: Buffer, label: string): Promise<string> {
  const photo = await inspectPhoto(bytes);
  const about = { model: 'plants', version: 'v0000000001', predicted: 'dandelion' };
  const saved = await saveFeedback(
    stores.db,
    { prediction: randomUUID(), client: '', ...about, label, photo },
    { ofAll: 100, ofClient: 100 },
  );
  const feedback = await findFeedback(stores.db, saved?.id ?? '');
  if (feedback === undefined) throw new Error('the feedback is not there');
  await stores.objects.put(imageKey(photo.sha256), bytes);
  await settleFeedback(stores.db, feedback, { status: 'accepted', label });
  return photo.sha256;
}

const candidatesOf = async ({ ingestion }: IngestResult) =>
  new Map((await listCandidates(stores.db, ingestion)).map((candidate) => [candidate.sha256, candidate]));

describe('reviewed photos', () => {
  it('join the next ingestion of their model, whatever its source, and every later one', async () => {
    expect((await ingest('before')).images).toBe(24);
    const sha256 = await accept(await drawPhoto('grass', 77, size), 'grass');
    for (const id of ['after', 'later']) {
      const result = await ingest(id);
      expect(result).toMatchObject({ images: 25, classes: { dandelion: 12, grass: 13 }, rejectedCount: 0 });
      expect((await candidatesOf(result)).get(sha256)).toMatchObject({
        ...{ label: 'grass', source: expect.stringMatching(/^feedback:/) },
      });
    }
    // A second attempt of the same event, which looks at what the first one left.
    expect((await ingest('later')).images).toBe(25);
    const [image] = await stores.db`select label_source from images where sha256 = ${sha256}`;
    expect(image).toEqual({ label_source: 'feedback' });
  });

  it('win over the label of a manifest, also where that contradicts itself', async () => {
    await ingest('before');
    const contested = await drawPhoto('dandelion', 3, size);
    await writeFile(join(folder, 'grass', 'copy.jpg'), contested);
    const sha256 = await accept(contested, 'grass');
    const result = await ingest('after');
    expect(result).toMatchObject({ images: 24, classes: { dandelion: 11, grass: 13 }, rejectedCount: 0 });
    expect((await candidatesOf(result)).get(sha256)?.label).toBe('grass');
  });

  it('of a class that the source has not stay out, and keep nothing else from being trained', async () => {
    await ingest('before');
    const stranger = await accept(await drawPhoto('grass', 78, size), 'moss');
    const known = await accept(await drawPhoto('grass', 4, size), 'moss');
    const result = await ingest('after');
    expect(result).toMatchObject({ images: 23, classes: { dandelion: 12, grass: 11 }, rejectedCount: 1 });
    const [rejection] = await listRejections(stores.db, result.ingestion);
    expect(rejection).toMatchObject({ source: 'grass/4.jpg', code: 'conflicting-labels' });
    expect(rejection?.reason).toContain('"moss"');
    const candidates = await candidatesOf(result);
    expect([candidates.has(stranger), candidates.has(known)]).toEqual([false, false]);
  });
});
