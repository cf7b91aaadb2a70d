import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  listModelVersions,
  promoteChampion,
  readChampion,
  readModel,
  readModelFile,
  saveModel,
} from './models.ts';
import { type ObjectStore, openObjects } from './objects.ts';
import { modelDraft } from './testing-models.ts';

let directory: string;
let objects: ObjectStore;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dandelion-models-'));
  objects = openObjects({ OBJECTS_DIR: directory });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const draft = (version: string) => modelDraft('plants', version);

describe('a stored model', () => {
  it('comes back with its record, and its files are held against their digests', async () => {
    const saved = await saveModel(objects, draft('v0000000001'), { 'head.bin': Buffer.from('head') });
    expect(await readModel(objects, 'plants', 'v0000000001')).toEqual(saved);
    expect((await readModelFile(objects, saved, 'head.bin')).toString()).toBe('head');
    expect(await listModelVersions(objects, 'plants')).toEqual(['v0000000001']);

    await objects.put('models/plants/v0000000001/head.bin', Buffer.from('heaD'));
    await expect(readModelFile(objects, saved, 'head.bin')).rejects.toMatchObject({ code: 'object-corrupt' });
  });

  it('is unknown until its record is written', async () => {
    await expect(readModel(objects, 'plants', 'v00000000ff')).rejects.toMatchObject({
      code: 'model-unknown',
    });
  });

  it('is reported broken when its record is not ours', async () => {
    await objects.put('models/plants/v00000000aa/model.json', Buffer.from('{"name": "plants"}'));
    await expect(readModel(objects, 'plants', 'v00000000aa')).rejects.toMatchObject({ code: 'model-broken' });
  });

  it('of another schema version is refused by that version', async () => {
    await objects.put('models/plants/v00000000ab/model.json', Buffer.from('{"schemaVersion": 7}'));
    await expect(readModel(objects, 'plants', 'v00000000ab')).rejects.toMatchObject({
      code: 'model-broken',
      message: expect.stringContaining('schema version 7, this release reads 1'),
    });
  });
});

describe('the champion', () => {
  it('is nobody at first, then the promoted version, which remembers its predecessor', async () => {
    expect(await readChampion(objects, 'plants')).toBeUndefined();
    await promoteChampion(objects, 'plants', 'v0000000001');
    const second = await promoteChampion(objects, 'plants', 'v0000000002');
    expect(second).toMatchObject({ version: 'v0000000002', previous: 'v0000000001' });
  });

  it('stays as it was when the same version is promoted again', async () => {
    const before = await readChampion(objects, 'plants');
    await promoteChampion(objects, 'plants', 'v0000000002');
    expect(await readChampion(objects, 'plants')).toEqual(before);
  });

  it('is moved by one of several deployments at the same moment; the others are told', async () => {
    const versions = ['v000000000a', 'v000000000b', 'v000000000c', 'v000000000d'];
    const outcomes = await Promise.allSettled(
      versions.map((version) => promoteChampion(objects, 'plants', version)),
    );
    const winners = outcomes.flatMap((outcome) =>
      outcome.status === 'fulfilled' ? [outcome.value.version] : [],
    );
    expect(winners.length).toBeGreaterThanOrEqual(1);
    expect(winners).toContain((await readChampion(objects, 'plants'))?.champion.version);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'lease-lost' });
    }
  });
});
