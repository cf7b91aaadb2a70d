import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { digestOf, type Event } from '../events.ts';
import { fromJsonEvent, toJsonEvent } from '../function/cloudevents.ts';
import { keptBytes } from './event-bytes.ts';

/** Events the broker has accepted and not yet brought to their end, on disk: an accepted event is never lost. */
export interface Journal {
  add(event: Event): Promise<void>;
  remove(event: Event): Promise<void>;
  /** What an earlier process left, in no particular order. */
  list(): Promise<Event[]>;
}

/** Opens the journal in a folder: one file an event. */
export async function openJournal(folder: string, logger: Logger): Promise<Journal> {
  await mkdir(folder, { recursive: true });
  const pathOf = (event: Event) => join(folder, `${digestOf(event.source, event.id).slice(0, 32)}.json`);
  return {
    async add(event) {
      const path = pathOf(event);
      const draft = `${path}.${randomUUID()}.draft`;
      await writeFile(draft, jsonOf(event));
      await rename(draft, path);
    },
    remove: (event) => rm(pathOf(event), { force: true }),
    async list() {
      const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
      const read = await Promise.all(names.map((name) => readEntry(join(folder, name), logger)));
      return read.filter((event) => event !== undefined);
    },
  };
}

/** A file that a power cut left without its bytes is set aside: it must not keep the others from going on. */
async function readEntry(path: string, logger: Logger): Promise<Event | undefined> {
  const text = await readFile(path, 'utf8');
  try {
    return fromJsonEvent(JSON.parse(text));
  } catch (error) {
    logger.error({ err: error, file: { path } }, 'an event that was accepted cannot be read any more');
    await rename(path, `${path}.unreadable`);
    return undefined;
  }
}

/** The event as one JSON document. */
function jsonOf(event: Event): string | Buffer {
  const data = keptBytes(event);
  if (data === undefined) return JSON.stringify(toJsonEvent(event));
  const attributes = JSON.stringify({ ...event, data: undefined });
  return Buffer.concat([Buffer.from(`${attributes.slice(0, -1)},"data":`), data, Buffer.from('}')]);
}
