import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Event } from '../events.ts';
import { openJournal } from './journal.ts';

const logger = pino({ level: 'silent' });
const event: Event = {
  specversion: '1.0',
  id: '1',
  source: '/test',
  type: 'dev.dandelion.told.v1',
  data: {},
};
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-journal-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it('keeps an event until it is removed', async () => {
  const journal = await openJournal(folder, logger);
  await journal.add(event);
  await journal.add(event);
  expect(await (await openJournal(folder, logger)).list()).toEqual([event]);
  await journal.remove(event);
  expect(await journal.list()).toEqual([]);
});

it.each(['', '{"specversion":"1.0","id', '{}'])(
  'goes on past a file that holds %j, and keeps it aside',
  async (left) => {
    const journal = await openJournal(folder, logger);
    await journal.add(event);
    await writeFile(join(folder, 'left.json'), left);
    expect(await journal.list()).toEqual([event]);
    expect(await readdir(folder)).toContain('left.json.unreadable');
    expect(await journal.list()).toEqual([event]);
  },
);
