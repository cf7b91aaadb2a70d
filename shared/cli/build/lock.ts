import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

/** One name or several, as manifests have it. */
const names = z.union([z.string().transform((name) => [name]), z.array(z.string())]);
const lockedPackage = z.looseObject({
  version: z.string().optional(),
  resolved: z.string().optional(),
  /** Subresource integrity: `sha512-` and base64. */
  integrity: z.string().optional(),
  license: z.string().optional(),
  os: names.optional(),
  cpu: names.optional(),
  libc: names.optional(),
});
const lockFile = z.looseObject({
  lockfileVersion: z.literal(3),
  /** By path, as `node_modules/a/node_modules/b`; the project itself is the empty path. */
  packages: z.record(z.string(), lockedPackage),
});
export type Lock = z.infer<typeof lockFile>;
export type LockedPackage = z.infer<typeof lockedPackage>;

/** Reads the `package-lock.json` of a folder. */
export async function readLock(folder: string): Promise<Lock> {
  return lockFile.parse(JSON.parse(await readFile(join(folder, 'package-lock.json'), 'utf8')));
}
