import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import type { ObjectSettings } from '../config.ts';
import { DandelionError, type ErrorCode } from '../errors.ts';
import { openFolder } from './objects-folder.ts';
import type { ReadDirectly } from './objects-s3-direct.ts';

/** Bytes under keys; the truth of photos, backbones and models. */
export interface ObjectStore {
  /** Where it is, for people: the folder, or bucket and server. */
  readonly place: string;
  /** Its name in `s3://{bucket}/{key}`. */
  readonly bucket: string;
  /** Writes an object whole or not at all. `digest` is the hex SHA-256 of the bytes. */
  put(key: string, bytes: Uint8Array): Promise<{ digest: string }>;
  /** As `put`, in a bounded amount of memory. A source that fails, or a signal that aborts, leaves no object. */
  putStream(
    key: string,
    source: AsyncIterable<Uint8Array>,
    options?: { signal?: AbortSignal },
  ): Promise<{ digest: string; sizeBytes: number }>;
  /** @throws DandelionError `object-missing`, `object-corrupt` where the store itself knows a checksum that differs */
  get(key: string): Promise<{ bytes: Buffer; etag: string }>;
  /**
   * The bytes as they come, to be read to the end or destroyed. Trouble on the way is the stream's error.
   *
   * @throws DandelionError `object-missing`
   */
  getStream(key: string): Promise<Readable>;
  head(key: string): Promise<{ sizeBytes: number } | undefined>;
  /** Every object whose key starts so. */
  list(prefix: string): AsyncIterable<{ key: string; sizeBytes: number }>;
  delete(key: string): Promise<void>;
  /**
   * Writes only if the object still has this etag (`null`: only if there is none yet), as S3's `If-Match` and
   * `If-None-Match`. `won` is false when someone else was first; then `etag` is theirs. Bytes that stand there already
   * count as won: a write may have been repeated on its way.
   */
  putIf(
    key: string,
    bytes: Uint8Array,
    condition: { etag: string | null },
  ): Promise<{ won: boolean; etag: string | undefined }>;
  /**
   * An address to which anyone who has it may PUT this object, of exactly this size, until it expires.
   *
   * @throws DandelionError `uploads-unsupported` where the store has no server of its own
   */
  presignPut(key: string, options: { sizeBytes: number; expiresMs: number }): Promise<PresignedPut>;
}

/** What an uploader needs to know. */
export interface PresignedPut {
  url: string;
  method: 'PUT';
  /** To be sent as they are. */
  headers: Record<string, string>;
  /** ISO 8601, UTC. */
  expiresAt: string;
}

/** What can be wrong with an object store as a whole; none of it is the object's or the caller's fault. */
const storeTroubles = new Set<ErrorCode>([
  'store-unavailable',
  'store-forbidden',
  'store-full',
  'bucket-missing',
  'clock-skewed',
  'certificate-invalid',
]);

/** True for trouble with an object store as a whole: what was asked for may well be there. */
export function isStoreTrouble(error: unknown): error is DandelionError {
  return error instanceof DandelionError && storeTroubles.has(error.code);
}

/**
 * Opens the object store that the settings name: S3 when S3_ENDPOINT is set, else the folder OBJECTS_DIR. Nothing is
 * asked of a server before the first use.
 *
 * @throws DandelionError `bad-config` when neither is set, or only one half of the credentials
 */
export function openObjects(settings: Partial<ObjectSettings>): ObjectStore {
  const { S3_ENDPOINT, OBJECTS_DIR, S3_BUCKET: bucket = 'dandelion' } = settings;
  if (S3_ENDPOINT !== undefined) return openServer({ ...settings, S3_ENDPOINT, S3_BUCKET: bucket });
  if (OBJECTS_DIR !== undefined) return openFolder(resolve(OBJECTS_DIR), bucket);
  throw new DandelionError(
    'bad-config',
    'Nothing says where objects are kept: set S3_ENDPOINT (with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) for an S3 server, or OBJECTS_DIR for a folder.',
  );
}

function openServer(
  settings: Partial<ObjectSettings> & { S3_ENDPOINT: string; S3_BUCKET: string },
): ObjectStore {
  const { S3_ENDPOINT, S3_BUCKET: bucket, AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret } = settings;
  if ((id === undefined) !== (secret === undefined)) {
    const missing = id === undefined ? 'AWS_ACCESS_KEY_ID' : 'AWS_SECRET_ACCESS_KEY';
    throw new DandelionError(
      'bad-config',
      `${missing} is not set, but its other half is: set both or neither.`,
    );
  }
  const server = { S3_REGION: 'us-east-1', ...settings };
  // Both are loaded when they are used: a function on a folder pays for neither, one that only reads not for the SDK.
  let opened: Promise<ObjectStore> | undefined;
  const store = () => {
    opened ??= import('./objects-s3.ts').then(({ openS3 }) => openS3(server));
    return opened;
  };
  let openedReads: Promise<ReadDirectly | undefined> | undefined;
  const reads = () => {
    openedReads ??= import('./objects-s3-direct.ts').then(({ openDirectReads }) => openDirectReads(server));
    return openedReads;
  };
  return {
    place: `the bucket ${bucket} at ${S3_ENDPOINT}`,
    bucket,
    put: async (...given) => (await store()).put(...given),
    putStream: async (...given) => (await store()).putStream(...given),
    get: async (key) => (await (await reads())?.(key)) ?? (await store()).get(key),
    getStream: async (...given) => (await store()).getStream(...given),
    head: async (...given) => (await store()).head(...given),
    async *list(prefix) {
      yield* (await store()).list(prefix);
    },
    delete: async (...given) => (await store()).delete(...given),
    putIf: async (...given) => (await store()).putIf(...given),
    presignPut: async (...given) => (await store()).presignPut(...given),
  };
}
