import { mkdir, rm, writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createEvent, type Event, type ImageSource } from '../../shared/events.ts';
import { type Invoked, invoke } from '../../shared/function/testing.ts';
import type { FunctionModule } from '../../shared/function/types.ts';
import { imageKey, listIngestedImages, listPhotos, listRejections } from '../../shared/stores/images.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import { startSite, type TestSite, tarOf, zipOf } from './fixtures.ts';
import { handler, init } from './handler.ts';
import type { IngestResult } from './settle.ts';

// Without `shutdown`, which closes every database of the process, the test's own among them.
const step: FunctionModule = { handler, init, durable: true };
const size = { width: 320, height: 240 };
const classes = ['dandelion', 'grass'] as const;

let photos: Map<string, Buffer>;
let stores: TestStores;
let site: TestSite;
let settings: Record<string, string>;
/** Answers of the site that differ from "the photo of this name". */
let answers: Record<string, RequestListener>;

beforeAll(async () => {
  const drawn = classes.flatMap((label) => Array.from({ length: 15 }, (_, seed) => ({ label, seed })));
  photos = new Map(
    await Promise.all(
      drawn.map(
        async ({ label, seed }) => [`${label}/${seed}.jpg`, await drawPhoto(label, seed, size)] as const,
      ),
    ),
  );
});

beforeEach(async () => {
  stores = await testStores();
  answers = {};
  site = await startSite((request, response) => {
    const answer = answers[request.url ?? ''];
    const photo = photos.get((request.url ?? '').slice(1));
    if (answer !== undefined) answer(request, response);
    else if (photo !== undefined) response.end(photo);
    else response.writeHead(404).end();
  });
  settings = {
    INGEST_ALLOWED_HOSTS: '127.0.0.1',
    INGEST_FILE_ROOTS: stores.directory,
    INGEST_TIMEOUT_MS: '400',
    INGEST_BACKOFF_MS: '1',
    INGEST_RETRY_AFTER_CAP_MS: '20',
  };
});

afterEach(async () => {
  await site.close();
  await stores.drop();
});

async function manifestOf(rows: readonly (readonly [url: string, label: string])[]): Promise<ImageSource> {
  const path = join(stores.directory, 'photos.csv');
  const text = ['url,label', ...rows.map(([url, label]) => `"${url}","${label}"`)].join('\n');
  await writeFile(path, text);
  return { kind: 'manifest', uri: pathToFileURL(path).href };
}

/** A row for each photo, all of them on the site. */
function allRows(): [url: string, label: string][] {
  return [...photos.keys()].map((name) => [`${site.origin}/${name}`, name.split('/')[0] ?? '']);
}

function requestOf(source: ImageSource, id = 'first'): Event {
  const type = 'dev.dandelion.retrain.requested.v1';
  return createEvent({ type, source: '/test', id, data: { model: 'plants', source, seed: 7 } });
}

function ingest(source: ImageSource, options: { id?: string; signal?: AbortSignal } = {}): Promise<Invoked> {
  const env = { ...stores.env, ...settings };
  return invoke(step, { name: 'ingest', event: requestOf(source, options.id), env, signal: options.signal });
}

function resultOf(invoked: Invoked): IngestResult {
  expect(invoked.problem).toBeUndefined();
  expect(invoked.event?.type).toBe('dev.dandelion.images.ingested.v1');
  return invoked.event?.data as IngestResult;
}

const hits = (path: string) => site.hits.get(path) ?? 0;

describe('ingesting a manifest', () => {
  it('stores what arrives and lists what does not, each with its reason', async () => {
    const large = Buffer.concat([await drawPhoto('grass', 99, size), Buffer.alloc(300_000)]);
    const whole = await drawPhoto('grass', 98, size);
    const wide = await sharp({ create: { width: 3000, height: 2000, channels: 3, background: 'green' } })
      .jpeg()
      .toBuffer();
    settings.INGEST_MAX_PHOTO_BYTES = '200000';
    settings.INGEST_MAX_PHOTO_PIXELS = '1000000';
    let refusals = 0;
    answers = {
      '/page.jpg': (_request, response) => {
        response.setHeader('content-type', 'text/html').end('<!doctype html><title>Not here</title>');
      },
      '/cut.jpg': (_request, response) => void response.end(whole.subarray(0, whole.length * 0.6)),
      '/header-only.jpg': (_request, response) => void response.end(whole.subarray(0, 20)),
      '/empty.jpg': (_request, response) => void response.end(),
      '/large.jpg': (_request, response) => void response.end(large),
      '/wide.jpg': (_request, response) => void response.end(wide),
      '/slow.jpg': () => {},
      '/gone.jpg': (_request, response) => void response.writeHead(410).end(),
      '/down.jpg': (_request, response) => void response.writeHead(503, { 'retry-after': '60' }).end(),
      '/inside.jpg': (_request, response) =>
        void response.writeHead(302, { location: 'http://10.0.0.1/' }).end(),
      '/broken.jpg': (_request, response) => {
        response.writeHead(200, { 'content-length': 9999 });
        response.write('x', () => response.destroy());
      },
      '/grass/0.jpg': (_request, response) => {
        refusals += 1;
        if (refusals < 3) response.writeHead(500).end();
        else response.end(photos.get('grass/0.jpg'));
      },
    };
    const bad: [path: string, code: string, reason: string][] = [
      ['missing.jpg', 'download-failed', '404'],
      ['gone.jpg', 'download-failed', '410'],
      ['down.jpg', 'download-failed', '503'],
      ['broken.jpg', 'download-failed', 'broke'],
      ['slow.jpg', 'download-timeout', 'tried 3 times'],
      ['page.jpg', 'not-an-image', 'HTML'],
      ['cut.jpg', 'truncated-image', 'cut off'],
      ['header-only.jpg', 'truncated-image', 'cut off'],
      ['empty.jpg', 'empty-file', 'no bytes'],
      ['large.jpg', 'image-too-large', '200000'],
      ['wide.jpg', 'too-many-pixels', '3000'],
      ['inside.jpg', 'address-refused', '10.0.0.1'],
    ];
    const badRows = bad.map(([path]) => [`${site.origin}/${path}`, 'grass'] as const);
    const invoked = await ingest(await manifestOf([...badRows, ...allRows()]));
    const result = resultOf(invoked);

    expect(result).toMatchObject({
      model: 'plants',
      seed: 7,
      images: 30,
      classes: { dandelion: 15, grass: 15 },
      reused: 0,
      duplicates: { exact: 0 },
      rejectedCount: bad.length,
    });
    const rejections = await listRejections(stores.db, result.ingestion);
    for (const [path, code, reason] of bad) {
      const source = `${site.origin}/${path}`;
      const rejection = rejections.find((candidate) => candidate.source === source);
      expect(rejection, path).toMatchObject({ code, reason: expect.stringContaining(reason) });
      expect(result.rejected, path).toContainEqual({ source, reason: rejection?.reason });
    }
    expect(hits('/missing.jpg')).toBe(1);
    expect(hits('/slow.jpg')).toBe(3);
    expect(hits('/down.jpg')).toBe(3);
    expect(hits('/grass/0.jpg')).toBe(3);

    const images = await listIngestedImages(stores.db, result.ingestion);
    expect(images).toHaveLength(30);
    for (const image of images) {
      const { bytes } = await stores.objects.get(imageKey(image.sha256));
      expect(bytes.length).toBe(image.sizeBytes);
      expect(image).toMatchObject({ ...size, format: 'jpeg' });
    }
    expect(invoked.progress.at(-1)).toMatchObject({ done: 42, total: 42 });
    const [ingestion] = await stores.db`select * from ingestions where id = ${result.ingestion}`;
    expect(ingestion).toMatchObject({
      model: 'plants',
      source_kind: 'manifest',
      counts: { images: 30, rejected: 12 },
    });
    expect(ingestion?.finished_at).toBeInstanceOf(Date);
  });

  it('goes on where an attempt stopped, and downloads nothing twice', async () => {
    const rows = allRows();
    const source = await manifestOf(rows);
    const stop = new AbortController();
    let served = 0;
    settings.INGEST_CONCURRENCY = '2';
    for (const name of photos.keys()) {
      answers[`/${name}`] = (_request, response) => {
        served += 1;
        if (served === 12) stop.abort(new Error('the lease was lost'));
        response.end(photos.get(name));
      };
    }
    const first = await ingest(source, { signal: stop.signal });
    expect(first.problem?.status).toBe(500);
    const servedFirst = served;
    expect(servedFirst).toBeLessThan(20);
    const [ledger] = await stores.db<
      { count: number }[]
    >`select count(*)::int as count from ingestion_images`;
    expect(ledger?.count).toBeGreaterThanOrEqual(servedFirst - 3);

    const result = resultOf(await ingest(source));
    expect(result).toMatchObject({ images: 30, reused: ledger?.count });
    expect(served).toBe(servedFirst + 30 - (ledger?.count ?? 0));

    const again = resultOf(await ingest(source));
    expect(served).toBe(servedFirst + 30 - (ledger?.count ?? 0));
    expect(again).toEqual({ ...result, reused: 30 });
  });

  it('fetches again what the object store lost', async () => {
    const source = await manifestOf(allRows());
    const { ingestion } = resultOf(await ingest(source));
    const [image] = await listIngestedImages(stores.db, ingestion);
    const sha256 = image?.sha256 ?? '';
    await stores.objects.delete(imageKey(sha256));
    expect(resultOf(await ingest(source)).reused).toBe(29);
    expect(await stores.objects.head(imageKey(sha256))).toBeDefined();
  });

  it('forgets entries and reasons that a repaired manifest no longer has', async () => {
    const rows = allRows();
    await ingest(await manifestOf([...rows, [`${site.origin}/missing.jpg`, 'grass']]));
    const result = resultOf(await ingest(await manifestOf(rows.slice(1))));
    expect(result).toMatchObject({ images: 29, rejectedCount: 0 });
    expect(await listIngestedImages(stores.db, result.ingestion)).toHaveLength(29);
    expect(await listRejections(stores.db, result.ingestion)).toEqual([]);
  });

  it('counts the same photo once, under whatever address', async () => {
    const photo = photos.get('grass/3.jpg');
    answers['/copy.jpg'] = (_request, response) => void response.end(photo);
    const copies: [string, string][] = [
      [`${site.origin}/copy.jpg`, 'grass'],
      [`${site.origin}/grass/3.jpg`, 'grass'],
    ];
    const result = resultOf(await ingest(await manifestOf([...allRows(), ...copies])));
    expect(result).toMatchObject({ images: 30, duplicates: { exact: 2 }, rejectedCount: 0 });
    expect(hits('/grass/3.jpg')).toBe(1);
  });

  it('refuses every entry of a photo that carries different labels', async () => {
    const photo = photos.get('grass/3.jpg');
    answers['/copy.jpg'] = (_request, response) => void response.end(photo);
    const conflicts: [string, string][] = [
      [`${site.origin}/copy.jpg`, 'dandelion'],
      // The very same address under another label, and a dead link listed twice.
      [`${site.origin}/grass/4.jpg`, 'dandelion'],
      [`${site.origin}/missing.jpg`, 'grass'],
      [`${site.origin}/missing.jpg`, 'dandelion'],
    ];
    const rows = [...allRows(), ...conflicts];
    const result = resultOf(await ingest(await manifestOf(rows)));
    expect(result).toMatchObject({ images: 28, classes: { dandelion: 15, grass: 13 }, rejectedCount: 6 });
    expect(result.images + result.duplicates.exact + result.rejectedCount).toBe(rows.length);
    const rejections = await listRejections(stores.db, result.ingestion);
    expect(rejections.map((rejection) => rejection.code).sort()).toEqual([
      ...Array(4).fill('conflicting-labels'),
      ...Array(2).fill('download-failed'),
    ]);
    const conflict = rejections.find((rejection) => rejection.source.endsWith('/copy.jpg'));
    expect(conflict?.reason).toMatch(/"dandelion" and "grass" .*grass\/3\.jpg/);
    expect(await listIngestedImages(stores.db, result.ingestion)).toHaveLength(28);
    expect(await listPhotos(stores.db, 'plants')).toHaveLength(28);
    expect(resultOf(await ingest(await manifestOf(rows)))).toEqual({ ...result, reused: 28 });
  });

  it('groups near duplicates, also with photos of earlier ingestions', async () => {
    const original = photos.get('grass/3.jpg');
    const smaller = await sharp(original).resize(240).jpeg({ quality: 60 }).toBuffer();
    answers['/smaller.jpg'] = (_request, response) => void response.end(smaller);
    const first = resultOf(await ingest(await manifestOf(allRows())));
    const rows: [string, string][] = [...allRows().slice(0, -1), [`${site.origin}/smaller.jpg`, 'grass']];
    const second = resultOf(await ingest(await manifestOf(rows), { id: 'second' }));
    expect(second.ingestion).not.toBe(first.ingestion);
    expect(second).toMatchObject({ images: 30, reused: 29, duplicates: { near: first.duplicates.near + 1 } });
    const grouped = await stores.db<{ sha256: string; near_duplicate_group: string }[]>`
      select i.sha256, near_duplicate_group from images i join ingestion_images e using (model, sha256)
      where e.source like '%/smaller.jpg' or e.source like '%/grass/3.jpg'`;
    const groups = new Set(grouped.map((row) => row.near_duplicate_group));
    expect(groups.size).toBe(1);
    expect(grouped.map((row) => row.sha256).sort()[0]).toBe([...groups][0]);
  });

  it('takes a new label from a new manifest, but keeps a correction', async () => {
    const rows = allRows();
    await ingest(await manifestOf(rows));
    const sources = rows.map(([url]) => url);
    await stores.db`update images set label_source = 'feedback' where source = ${sources[0] ?? ''}`;
    const swapped = rows.map(([url, label]) => [url, label === 'grass' ? 'daisy' : 'tulip'] as const);
    await ingest(await manifestOf(swapped), { id: 'second' });
    const labels = await stores.db<{ source: string; label: string }[]>`select source, label from images`;
    const labelOf = new Map(labels.map((row) => [row.source, row.label]));
    expect(labelOf.get(sources[0] ?? '')).toBe('dandelion');
    expect(labelOf.get(sources[1] ?? '')).toBe('tulip');
    expect(labelOf.get(sources[20] ?? '')).toBe('daisy');
  });
});

describe('ingesting folders and archives', () => {
  it('reads a folder', async () => {
    const folder = join(stores.directory, 'plants');
    for (const [name, bytes] of photos) {
      await mkdir(join(folder, name, '..'), { recursive: true });
      await writeFile(join(folder, name), bytes);
    }
    await writeFile(join(folder, 'grass', 'notes.txt'), 'not a photo');
    await writeFile(join(folder, 'README.md'), 'ignored');
    const source: ImageSource = { kind: 'folder', uri: pathToFileURL(folder).href };
    const result = resultOf(await ingest(source));
    expect(result).toMatchObject({ images: 30, classes: { dandelion: 15, grass: 15 }, rejectedCount: 1 });
    expect(result.rejected[0]).toEqual({
      source: 'grass/notes.txt',
      reason: expect.stringContaining('text file'),
    });
    await rm(folder, { recursive: true });
    expect((await ingest(source)).problem).toMatchObject({ code: 'bad-folder', status: 422 });
  });

  it.each(['zip', 'tar'])('reads a %s archive from the web', async (kind) => {
    const files = [...photos].map(([name, bytes]) => ({ name: `plants/${name}`, bytes }));
    const archive = kind === 'zip' ? zipOf(files) : await tarOf(files);
    answers['/plants'] = (_request, response) => void response.end(archive);
    const result = resultOf(await ingest({ kind: 'archive', uri: `${site.origin}/plants` }));
    expect(result).toMatchObject({ images: 30, classes: { dandelion: 15, grass: 15 }, rejectedCount: 0 });
  });
});

describe('text that no database holds', () => {
  const odd = 'a\0b';

  it('in an address, a label or the file of a manifest is one rejection', async () => {
    const rows: [string, string][] = [
      [`${site.origin}/${odd}.jpg`, 'grass'],
      [`${site.origin}/x.jpg`, odd],
      [`file:///${odd}.jpg`, 'grass'],
      [`${odd}.jpg`, 'grass'],
    ];
    const result = resultOf(await ingest(await manifestOf([...allRows(), ...rows])));
    expect(result).toMatchObject({ images: 30, rejectedCount: 4 });
    expect(await listRejections(stores.db, result.ingestion)).toHaveLength(4);
  });

  it('in a name of an archive is one rejection, or a photo', async () => {
    const files = [...photos].map(([name, bytes]) => ({ name, bytes }));
    const bytes = await drawPhoto('grass', 77, size);
    const named = [`grass/${odd}.jpg`, `${odd}/c.jpg`, `../${odd}.jpg`].map((name) => ({ name, bytes }));
    answers['/zip'] = (_request, response) => void response.end(zipOf([...files, ...named]));
    const result = resultOf(await ingest({ kind: 'archive', uri: `${site.origin}/zip` }));
    expect(result.images + result.rejectedCount).toBe(33);
  });
});

describe('refusing what cannot be trained on', () => {
  it('names the class with too few photos, and keeps what arrived', async () => {
    const rows = allRows().filter(([url]) => !/dandelion\/\d\.jpg/.test(url));
    const invoked = await ingest(await manifestOf(rows));
    expect(invoked.problem).toMatchObject({
      code: 'too-few-images',
      status: 422,
      classes: { dandelion: 5, grass: 15 },
    });
    expect(invoked.problem?.detail).toContain('"dandelion" has 5');
    expect(await listPhotos(stores.db, 'plants')).toHaveLength(20);
    expect(resultOf(await ingest(await manifestOf(allRows()), { id: 'second' })).reused).toBe(20);
  });

  it('names a class whose photos all failed', async () => {
    const dead: [string, string][] = [[`${site.origin}/missing.jpg`, 'tulip']];
    const invoked = await ingest(await manifestOf([...allRows(), ...dead]));
    expect(invoked.problem?.code).toBe('too-few-images');
    expect(invoked.problem?.detail).toContain('"tulip" has 0');
  });

  it('wants two classes, and photos at all', async () => {
    const one = await ingest(await manifestOf(allRows().slice(0, 15)));
    expect(one.problem).toMatchObject({
      code: 'too-few-classes',
      detail: expect.stringContaining('dandelion'),
    });
    const none = await ingest(await manifestOf([[`${site.origin}/missing.jpg`, 'grass']]), { id: 'none' });
    expect(none.problem).toMatchObject({ code: 'no-images', rejectedCount: 1 });
    expect(none.problem?.detail).toContain('missing.jpg');
  });

  it('refuses a manifest that is none, and events that are not for this step', async () => {
    const path = join(stores.directory, 'photos.csv');
    await writeFile(path, 'name;class\n');
    const source: ImageSource = { kind: 'manifest', uri: pathToFileURL(path).href };
    expect((await ingest(source)).problem).toMatchObject({ code: 'bad-manifest', status: 422 });
    const env = { ...stores.env, ...settings };
    const other = { ...requestOf(source), type: 'dev.dandelion.model.trained.v1' };
    expect((await invoke(step, { event: other, env })).problem?.code).toBe('bad-event');
    const bare = { ...requestOf(source), data: { model: 'Not A Name' } };
    expect((await invoke(step, { event: bare, env })).problem?.code).toBe('bad-data');
  });

  it('ends the attempt, to be repeated, when the object store fails', async () => {
    await mkdir(join(stores.directory, 'objects'), { recursive: true });
    await writeFile(join(stores.directory, 'objects', 'images'), 'a file where a folder belongs');
    const invoked = await ingest(await manifestOf(allRows()));
    expect(invoked.problem).toMatchObject({ code: 'store-unavailable', status: 503 });
    expect(await stores.db`select * from rejections`).toHaveLength(0);
  });
});
