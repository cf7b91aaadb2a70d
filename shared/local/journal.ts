import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { digestOf, type Event } from '../events.ts';
import { fromJsonEvent, toJsonEvent } from '../function/cloudevents.ts';

/** Events the broker has accepted and not yet brought to their end, on disk: an accepted event is never lost. */
export interface Journal {
  add(event: Event): Promise<void>;
  remove(event: Event): Promise<void>;
  /** What an earlier process left, in no particular order. */
  list(): Promise<Event[]>;
}

/** Opens the journal in a folder: one file an event. */
export async function openJournal(folder: string): Promise<Journal> {
  await mkdir(folder, { recursive: true });
  const pathOf = (event: Event) => join(folder, `${digestOf(event.source, event.id).slice(0, 32)}.json`);
  return {
    async add(event) {
      const path = pathOf(event);
      const draft = `${path}.${randomUUID()}.draft`;
      await writeFile(draft, JSON.stringify(toJsonEvent(event)));
      await rename(draft, path);
    },
    remove: (event) => rm(pathOf(event), { force: true }),
    async list() {
      const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
      return Promise.all(
        names.map(async (name) => fromJsonEvent(JSON.parse(await readFile(join(folder, name), 'utf8')))),
      );
    },
  };
}
