import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DandelionError } from '../../shared/errors.ts';
import { isBucketAddress, openBucketFolder } from './bucket.ts';
import type { FaultyEntry, OpenSource, SourceAccess, SourceEntry } from './entries.ts';
import { entryAt, findLayout, isIgnored } from './layout.ts';
import { isBeneath, pathOfFileUrl, readFileCapped, resolveBeneath } from './local-files.ts';

/**
 * Opens a folder with a folder a class; files may lie deeper in it.
 *
 * @throws DandelionError `bad-folder` when it is none, `forbidden` outside INGEST_FILE_ROOTS
 */
export async function openFolder(uri: string, access: SourceAccess): Promise<OpenSource> {
  const { settings, signal } = access;
  if (isBucketAddress(uri)) return openBucketFolder(uri, access);
  if (!/^file:/i.test(uri))
    throw badFolder(
      `${uri} is no folder of this machine; use file:// and its path, or s3:// and its place in the bucket.`,
    );
  const root = await resolveBeneath(pathOfFileUrl(uri), settings.INGEST_FILE_ROOTS).catch(asBadFolder);
  const found = await stat(root);
  if (!found.isDirectory()) throw badFolder(`${root} is not a folder.`);
  const layout = findLayout();
  let total = 0;
  for await (const item of walk(root, [], signal)) {
    total += 1;
    if ('parts' in item) layout.note(item.parts);
  }
  const wrapping = layout.wrappingFolders();
  return {
    total,
    close: async () => {},
    entries: (async function* (): AsyncIterable<SourceEntry> {
      for await (const item of walk(root, [], signal)) {
        if (!('parts' in item)) yield item;
        else {
          yield entryAt(item.parts, wrapping, () =>
            readFileCapped(item.path, settings.INGEST_MAX_PHOTO_BYTES),
          );
        }
      }
    })(),
  };
}

interface FoundFile {
  /** Free of links. */
  path: string;
  /** Names from the root on. */
  parts: string[];
}

/** Every file below a folder in the order of names, and every link that is not followed. */
async function* walk(
  root: string,
  above: readonly string[],
  signal: AbortSignal,
): AsyncIterable<FoundFile | FaultyEntry> {
  signal.throwIfAborted();
  const directory = join(root, ...above);
  const children = await readdir(directory, { withFileTypes: true }).catch((error: unknown) => {
    throw badFolder(
      `The folder ${directory} cannot be read (${error instanceof Error ? error.message : error}).`,
    );
  });
  children.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const child of children) {
    const parts = [...above, child.name];
    if (isIgnored([child.name])) continue;
    if (child.isDirectory()) yield* walk(root, parts, signal);
    else if (child.isFile()) yield { path: join(root, ...parts), parts };
    else if (child.isSymbolicLink()) yield await followLink(root, parts);
    else yield fault(parts, 'This is not a regular file.');
  }
}

/** Links may name another file of the folder; out of it or to a folder (which may lead in circles) they end. */
async function followLink(root: string, parts: string[]): Promise<FoundFile | FaultyEntry> {
  try {
    const path = await resolveBeneath(join(root, ...parts), [root]);
    const target = await stat(path);
    if (target.isFile() && isBeneath(path, root)) return { path, parts };
    return fault(parts, 'A link to a folder is not followed; put the photos themselves there.');
  } catch (error) {
    if (error instanceof DandelionError && error.code === 'forbidden') {
      return fault(parts, 'The link leads out of the folder; put the photo itself there.');
    }
    return fault(parts, 'The link leads nowhere.');
  }
}

function fault(parts: readonly string[], reason: string): FaultyEntry {
  return { kind: 'fault', source: parts.join('/'), code: 'forbidden', reason };
}

function asBadFolder(error: unknown): never {
  if (error instanceof DandelionError && error.code === 'file-unreadable') {
    throw badFolder(error.message.replace('There is no file', 'There is no folder'));
  }
  throw error;
}

function badFolder(sentence: string): DandelionError {
  return new DandelionError('bad-folder', sentence);
}
