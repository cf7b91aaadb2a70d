import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { DandelionError } from '../errors.ts';
import { lockFile } from './file-lock.ts';

/** Bytes under keys; the truth of photos, backbones and models. */
export interface ObjectStore {
  /** Writes an object whole or not at all. `digest` is the hex SHA-256 of the bytes. */
  put(key: string, bytes: Uint8Array): Promise<{ digest: string }>;
  /** @throws DandelionError `object-missing` */
  get(key: string): Promise<{ bytes: Buffer; etag: string }>;
  head(key: string): Promise<{ sizeBytes: number } | undefined>;
  list(prefix: string): AsyncIterable<{ key: string; sizeBytes: number }>;
  delete(key: string): Promise<void>;
  /**
   * Writes only if the object still has this etag (`null`: only if there is none yet), as S3's `If-Match` and
   * `If-None-Match`. `won` is false when someone else was first; then `etag` is theirs.
   */
  putIf(
    key: string,
    bytes: Uint8Array,
    condition: { etag: string | null },
  ): Promise<{ won: boolean; etag: string | undefined }>;
}

const keyPattern = /^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;

/** Opens the object store that the settings name. */
export function openObjects(settings: { OBJECTS_DIR: string }): ObjectStore {
  return openFolder(resolve(settings.OBJECTS_DIR));
}

/** An etag that changes with every content, as S3's does for objects put in one piece. */
function etagOf(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('hex');
}

function openFolder(root: string): ObjectStore {
  const pathOf = (key: string): string => {
    if (!keyPattern.test(key)) throw new DandelionError('bad-request', `"${key}" is not an object key.`);
    return join(root, key);
  };

  const read = async (key: string): Promise<Buffer | undefined> => {
    try {
      return await readFile(pathOf(key));
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined;
      throw storeTrouble(root, error);
    }
  };

  const currentEtag = async (key: string): Promise<string | undefined> => {
    const bytes = await read(key);
    return bytes === undefined ? undefined : etagOf(bytes);
  };

  let swept: Promise<void> | undefined;
  const write = async (key: string, bytes: Uint8Array): Promise<void> => {
    const path = pathOf(key);
    swept ??= sweepDrafts(root);
    await swept;
    await writeWhole(root, path, bytes);
  };

  return {
    async put(key, bytes) {
      await write(key, bytes);
      return { digest: createHash('sha256').update(bytes).digest('hex') };
    },

    async get(key) {
      const bytes = await read(key);
      if (bytes === undefined)
        throw new DandelionError('object-missing', `The object store has no "${key}".`);
      return { bytes, etag: etagOf(bytes) };
    },

    async head(key) {
      const found = await stat(pathOf(key)).catch(() => undefined);
      return found === undefined ? undefined : { sizeBytes: found.size };
    },

    async *list(prefix) {
      for await (const path of walk(root)) {
        const key = relative(root, path).split(sep).join('/');
        if (!key.startsWith(prefix)) continue;
        const { size } = await stat(path);
        yield { key, sizeBytes: size };
      }
    },

    async delete(key) {
      await rm(pathOf(key), { force: true });
    },

    async putIf(key, bytes, condition) {
      pathOf(key);
      const release = await lockFile(join(root, '.locks', key.replaceAll('/', '~'))).catch(
        (error: unknown) => {
          throw storeTrouble(root, error);
        },
      );
      try {
        const etag = await currentEtag(key);
        if (etag !== (condition.etag ?? undefined)) return { won: false, etag };
        await write(key, bytes);
        return { won: true, etag: etagOf(bytes) };
      } finally {
        await release();
      }
    },
  };
}

/** No write takes this long: its process was killed. */
const DRAFT_LEFT_AFTER_MS = 3_600_000;

/** Removes what killed processes left half written. */
async function sweepDrafts(root: string): Promise<void> {
  const drafts = join(root, '.drafts');
  for (const name of await readdir(drafts).catch(() => [])) {
    const path = join(drafts, name);
    const found = await stat(path).catch(() => undefined);
    const isLeft = found !== undefined && Date.now() - found.mtimeMs > DRAFT_LEFT_AFTER_MS;
    if (isLeft) await rm(path, { force: true }).catch(() => {});
  }
}

/** A reader sees the old bytes or the new ones: the draft is renamed into place when it is complete. */
async function writeWhole(root: string, path: string, bytes: Uint8Array): Promise<void> {
  const drafts = join(root, '.drafts');
  const draft = join(drafts, randomBytes(12).toString('hex'));
  try {
    await Promise.all([mkdir(drafts, { recursive: true }), mkdir(dirname(path), { recursive: true })]);
    await writeFile(draft, bytes);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw storeTrouble(root, error);
  }
}

async function* walk(directory: string): AsyncIterable<string> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith('.')) continue;
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else yield path;
  }
}

function hasErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function storeTrouble(where: string, cause: unknown): DandelionError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new DandelionError('store-unavailable', `The object store at ${where} failed: ${why}.`, { cause });
}
