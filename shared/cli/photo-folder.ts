import { readdir, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { DandelionError } from '../errors.ts';

/** A photo's file in a folder with a sub-folder a class. */
export interface PhotoFile {
  path: string;
  /** The class: the folder the file lies in. */
  label: string;
  sizeBytes: number;
}

/**
 * Photos of a folder by their names' endings, sorted by path; the innermost folder is the class.
 *
 * @throws DandelionError `bad-folder` when it cannot be read
 */
export async function listPhotoFiles(folder: string): Promise<PhotoFile[]> {
  return (await photoFilesBelow(folder)).filter(({ label }) => label !== '');
}

/**
 * The same with those that lie in the folder itself, whose label is empty.
 *
 * @throws DandelionError `bad-folder` when it cannot be read
 */
export async function photoFilesBelow(folder: string): Promise<PhotoFile[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DandelionError('bad-folder', `The folder ${folder} cannot be read: ${why}.`, { cause });
  });
  const files = entries.filter((entry) => entry.isFile() && /\.(jpe?g|png|webp|avif|gif)$/i.test(entry.name));
  const photos = await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const path = join(parentPath, name);
      const label = relative(folder, parentPath).split(sep).at(-1) ?? '';
      return { path, label, sizeBytes: (await stat(path)).size };
    }),
  );
  return photos.sort((a, b) => (a.path < b.path ? -1 : 1));
}
