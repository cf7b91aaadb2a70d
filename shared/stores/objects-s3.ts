import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from '@aws-sdk/client-s3';
import { DandelionError } from '../errors.ts';
import { checkKey, objectMissing } from './object-keys.ts';
import { gather, measure } from './object-streams.ts';
import type { ObjectStore } from './objects.ts';
import { CONNECT_WITHIN_MS, type ServerSettings, SILENT_FOR_MS } from './objects-s3-settings.ts';
import { describeTrouble, isChecksumFault, lacksBucket, notS3, statusOf } from './objects-s3-trouble.ts';

/** A server that restarts is back within these tries; the SDK waits longer before each. */
const TRIES = 5;
/** Of a multipart upload; S3 allows 10 000 parts, so 160 GB. */
const PART_BYTES = 16 * 1024 * 1024;
const PARTS_AT_ONCE = 3;
const LONGEST_PRESIGN_MS = 7 * 24 * 3_600_000;

/**
 * The object store on an S3 server, in the part of S3 that MinIO, versitygw and AWS all have. Bodies carry checksums
 * both ways (CRC32, where the server knows it); requests are repeated on network trouble, 5xx and throttling.
 *
 * The bucket is made when it turns out to be missing. Trouble is told by the codes of `isStoreTrouble`.
 */
export function openS3(settings: ServerSettings): ObjectStore {
  const { S3_ENDPOINT: endpoint, S3_BUCKET: Bucket, S3_REGION: region } = settings;
  const client = new S3Client(clientConfig(settings));
  const store = { endpoint, bucket: Bucket };

  const makeBucket = async (): Promise<void> => {
    const place = region === 'us-east-1' ? {} : { CreateBucketConfiguration: { LocationConstraint: region } };
    try {
      await client.send(new CreateBucketCommand({ Bucket, ...(place as object) }));
    } catch (error) {
      if (error instanceof Error && /^BucketAlready(OwnedByYou|Exists)$/.test(error.name)) return;
      if (statusOf(error) !== 403) throw describeTrouble(error, store);
      throw new DandelionError(
        'bucket-missing',
        `The S3 server at ${endpoint} has no bucket "${Bucket}", and these credentials may not create it: create it, or set S3_BUCKET to one that exists.`,
        { cause: error, retryAfterMs: 2000 },
      );
    }
  };

  /** Does something with the bucket, which is made if it is not there. */
  const inBucket = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    try {
      return await work();
    } catch (error) {
      if (!lacksBucket(error)) throw error;
      await makeBucket();
      return work();
    }
  };
  const send = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    try {
      return await inBucket(work);
    } catch (error) {
      throw describeTrouble(error, store);
    }
  };

  let bucketSeen: Promise<void> | undefined;
  /** Where an answer does not tell a missing object from a missing bucket, or nothing can be sent twice. */
  const requireBucket = (): Promise<void> => {
    bucketSeen ??= client.send(new HeadBucketCommand({ Bucket })).then(
      () => {},
      (error: unknown) => {
        if (statusOf(error) === 404) return makeBucket();
        bucketSeen = undefined;
        throw describeTrouble(error, store);
      },
    );
    bucketSeen.catch(() => {
      bucketSeen = undefined;
    });
    return bucketSeen;
  };

  const open = async (Key: string): Promise<GetObjectCommandOutput & { Body: Readable; ETag: string }> => {
    checkKey(Key);
    try {
      const found = await inBucket(() => client.send(new GetObjectCommand({ Bucket, Key })));
      if (found.ETag === undefined || !(found.Body instanceof Readable)) throw notS3(endpoint);
      return { ...found, ETag: found.ETag, Body: found.Body };
    } catch (error) {
      throw statusOf(error) === 404 && !lacksBucket(error)
        ? objectMissing(Key)
        : describeTrouble(error, store);
    }
  };
  /** Trouble while the bytes come. */
  const broken = (key: string, error: unknown): DandelionError => {
    if (!isChecksumFault(error)) return describeTrouble(error, store);
    const sentence = `"${key}" is not what was stored: the checksum of the S3 server at ${endpoint} differs.`;
    return new DandelionError('object-corrupt', sentence, { cause: error });
  };

  const get = async (key: string): Promise<{ bytes: Buffer; etag: string }> => {
    for (let tries = 1; ; tries++) {
      const { Body, ETag, ContentLength } = await open(key);
      try {
        return { bytes: await gather(Body, ContentLength), etag: ETag };
      } catch (error) {
        // The SDK repeats requests; an answer that breaks off half way is ours to ask for again.
        if (tries === TRIES || isChecksumFault(error)) throw broken(key, error);
        await sleep(100 * 2 ** tries);
      }
    }
  };
  const getIfThere = async (key: string) => {
    return get(key).catch((error: unknown) => {
      if (error instanceof DandelionError && error.code === 'object-missing') return undefined;
      throw error;
    });
  };

  return {
    place: `the bucket ${Bucket} at ${endpoint}`,
    bucket: Bucket,

    async put(key, bytes) {
      checkKey(key);
      const { ETag } = await send(() => client.send(new PutObjectCommand({ Bucket, Key: key, Body: bytes })));
      if (ETag === undefined) throw notS3(endpoint);
      return { digest: createHash('sha256').update(bytes).digest('hex') };
    },

    async putStream(key, source, { signal } = {}) {
      checkKey(key);
      await requireBucket();
      const { Upload } = await import('@aws-sdk/lib-storage');
      const measured = measure(source, signal);
      const upload = new Upload({
        client,
        params: { Bucket, Key: key, Body: Readable.from(measured.bytes, { objectMode: false }) },
        partSize: PART_BYTES,
        queueSize: PARTS_AT_ONCE,
      });
      const abort = () => void upload.abort();
      signal?.addEventListener('abort', abort);
      try {
        await upload.done();
      } catch (error) {
        signal?.throwIfAborted();
        throw measured.fault() ?? describeTrouble(error, store);
      } finally {
        signal?.removeEventListener('abort', abort);
      }
      return measured.result();
    },

    get,

    async getStream(key) {
      const { Body } = await open(key);
      const pass = async function* () {
        try {
          yield* Body;
        } catch (error) {
          throw broken(key, error);
        }
      };
      return Readable.from(pass(), { objectMode: false });
    },

    async head(key) {
      checkKey(key);
      try {
        const { ContentLength = 0 } = await client.send(new HeadObjectCommand({ Bucket, Key: key }));
        return { sizeBytes: ContentLength };
      } catch (error) {
        if (statusOf(error) !== 404) throw describeTrouble(error, store);
        await requireBucket();
        return undefined;
      }
    },

    async *list(prefix) {
      let next: string | undefined;
      do {
        const asked = { Bucket, Prefix: prefix, ...(next === undefined ? {} : { ContinuationToken: next }) };
        const page: ListObjectsV2CommandOutput = await send(() =>
          client.send(new ListObjectsV2Command(asked)),
        );
        if (page.Name === undefined) throw notS3(endpoint);
        for (const { Key, Size = 0 } of page.Contents ?? []) {
          // Consoles mark folders by empty objects of this name.
          if (Key !== undefined && !Key.endsWith('/')) yield { key: Key, sizeBytes: Size };
        }
        next = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (next !== undefined);
    },

    async delete(key) {
      checkKey(key);
      await send(() => client.send(new DeleteObjectCommand({ Bucket, Key: key })));
    },

    async putIf(key, bytes, { etag }) {
      checkKey(key);
      const condition = etag === null ? { IfNoneMatch: '*' } : { IfMatch: etag };
      const command = () => new PutObjectCommand({ Bucket, Key: key, Body: bytes, ...condition });
      for (let tries = 1; ; tries++) {
        try {
          const { ETag } = await inBucket(() => client.send(command()));
          if (ETag === undefined) throw notS3(endpoint);
          return { won: true, etag: ETag };
        } catch (error) {
          // 412: it has changed; 409: someone else is writing; 404: it was there, and is not any more.
          if (![404, 409, 412].includes(statusOf(error) ?? 0) || lacksBucket(error)) {
            throw describeTrouble(error, store);
          }
          // The SDK may have repeated a write that had already won: what counts is what stands there.
          const standing = await getIfThere(key);
          if (standing?.bytes.equals(bytes) === true) return { won: true, etag: standing.etag };
          const isUnchanged = (standing?.etag ?? null) === etag;
          if (!isUnchanged) return { won: false, etag: standing?.etag };
          if (tries === TRIES) throw describeTrouble(error, store);
          await sleep(Math.random() * 50 * 2 ** tries);
        }
      }
    },

    async presignPut(key, { sizeBytes, expiresMs }) {
      checkKey(key);
      await requireBucket();
      const { getSignedUrl } = await import('@aws-sdk/s3-request-presigner');
      const seconds = Math.round(Math.min(expiresMs, LONGEST_PRESIGN_MS) / 1000);
      // A checksum of bytes that are not known yet cannot be signed.
      const config = { ...clientConfig(settings), requestChecksumCalculation: 'WHEN_REQUIRED' as const };
      const signer = new S3Client({ ...config, endpoint: settings.S3_PUBLIC_ENDPOINT ?? endpoint });
      const command = new PutObjectCommand({ Bucket, Key: key, ContentLength: sizeBytes });
      const url = await getSignedUrl(signer, command, {
        expiresIn: seconds,
        unhoistableHeaders: new Set(['content-length']),
        signableHeaders: new Set(['host', 'content-length']),
      }).catch((error: unknown) => {
        throw describeTrouble(error, store);
      });
      signer.destroy();
      const expiresAt = new Date(Date.now() + seconds * 1000).toISOString();
      return { url, method: 'PUT', headers: { 'content-length': String(sizeBytes) }, expiresAt };
    },
  };
}

/**
 * True when the bucket is there and these credentials may list it; asked once, and nothing is made.
 *
 * @throws DandelionError the codes of `isStoreTrouble`
 */
export async function seekBucket(settings: ServerSettings): Promise<boolean> {
  const { S3_ENDPOINT: endpoint, S3_BUCKET: Bucket } = settings;
  const client = new S3Client({ ...clientConfig(settings), maxAttempts: 1 });
  try {
    const answer = await client.send(new ListObjectsV2Command({ Bucket, MaxKeys: 1 }));
    // A web page parses to an answer that says nothing.
    if (answer.Name === undefined && answer.KeyCount === undefined) throw notS3(endpoint);
    return true;
  } catch (error) {
    if (lacksBucket(error)) return false;
    throw describeTrouble(error, { endpoint, bucket: Bucket });
  } finally {
    client.destroy();
  }
}

function clientConfig(settings: ServerSettings): S3ClientConfig {
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN: sessionToken } = settings;
  const isGiven = AWS_ACCESS_KEY_ID !== undefined && AWS_SECRET_ACCESS_KEY !== undefined;
  const credentials = {
    accessKeyId: AWS_ACCESS_KEY_ID ?? '',
    secretAccessKey: AWS_SECRET_ACCESS_KEY ?? '',
    ...(sessionToken === undefined ? {} : { sessionToken }),
  };
  return {
    endpoint: settings.S3_ENDPOINT,
    region: settings.S3_REGION,
    // Every S3 server knows it; names of hosts that hold the bucket need DNS of the server's own.
    forcePathStyle: true,
    maxAttempts: TRIES,
    requestHandler: { connectionTimeout: CONNECT_WITHIN_MS, socketTimeout: SILENT_FOR_MS },
    // Without them the SDK looks in files and asks metadata services.
    ...(isGiven ? { credentials } : {}),
  };
}
