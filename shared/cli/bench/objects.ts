import { randomBytes } from 'node:crypto';
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { type ObjectStore, openObjects } from '../../stores/objects.ts';
import type { Stage } from './stage.ts';
import { ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';

/** As many as ingest stores at once. */
const AT_ONCE = 16;
const PHOTO_BYTES = 20_000;
const LARGE_BYTES = 20_000_000;

interface Way {
  put(key: string, bytes: Uint8Array): Promise<unknown>;
  get(key: string): Promise<unknown>;
}

/** The object store on the S3 server of S3_ENDPOINT, beside the bare client on the same server, in turns. */
export async function measureObjects(stage: Stage): Promise<Row[]> {
  const { server, options, say } = stage;
  if (server.S3_ENDPOINT === undefined) {
    say('SKIPPED: S3_ENDPOINT is not set, so there is no S3 server to measure on.');
    return [];
  }
  const store = openObjects({ ...server, S3_BUCKET: `bench-${randomBytes(6).toString('hex')}` });
  const ways = { ours: store, bare: bareClient(store, server.S3_ENDPOINT, server) };
  const photos = Array.from({ length: options.quick ? 64 : 320 }, () => randomBytes(PHOTO_BYTES));
  const large = Array.from({ length: 4 }, () => randomBytes(LARGE_BYTES));
  const written: string[] = [];
  try {
    return [
      ...(await compare('photos of 20 KB, 16 at once', ways, photos, AT_ONCE, written, options.runs)),
      ...(await compare('objects of 20 MB, one by one', ways, large, 1, written, options.runs)),
    ];
  } finally {
    for (const key of written) await store.delete(key);
  }
}

function bareClient(
  store: ObjectStore,
  endpoint: string,
  { S3_REGION: region, ...keys }: Stage['server'],
): Way {
  const credentials = {
    accessKeyId: keys.AWS_ACCESS_KEY_ID ?? '',
    secretAccessKey: keys.AWS_SECRET_ACCESS_KEY ?? '',
  };
  const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true });
  const Bucket = store.bucket;
  return {
    put: (Key, Body) => client.send(new PutObjectCommand({ Bucket, Key, Body })),
    async get(Key) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
      return Body?.transformToByteArray();
    },
  };
}

async function compare(
  what: string,
  ways: Record<'ours' | 'bare', Way>,
  objects: readonly Uint8Array[],
  atOnce: number,
  written: string[],
  runs: number,
): Promise<Row[]> {
  const times: Record<string, number[]> = { oursPut: [], barePut: [], oursGet: [], bareGet: [] };
  // The first round makes the bucket and opens the connections; it does not count.
  for (let round = 0; round <= runs; round++) {
    const order = round % 2 === 0 ? (['ours', 'bare'] as const) : (['bare', 'ours'] as const);
    for (const name of order) {
      const keys = objects.map((_, index) => `${name}/${objects[0]?.length}/${index}`);
      if (round === 0) written.push(...keys);
      const putMs = await timed(atOnce, keys, (key, index) =>
        ways[name].put(key, objects[index] as Uint8Array),
      );
      const getMs = await timed(atOnce, keys, (key) => ways[name].get(key));
      if (round === 0) continue;
      times[`${name}Put`]?.push(putMs);
      times[`${name}Get`]?.push(getMs);
    }
  }
  const of = (name: string) => times[name] ?? [];
  return ['Put', 'Get'].flatMap((call) => [
    row(`${call.toLowerCase()} ${what}`, 'ms', summarise(of(`ours${call}`))),
    row(
      `${call.toLowerCase()} ${what}: time / bare SDK`,
      'x',
      ratioOf(of(`ours${call}`), of(`bare${call}`)),
      {
        atMost: 1.2,
      },
    ),
  ]);
}

/** Time of all calls, so many at once. */
async function timed(
  atOnce: number,
  keys: readonly string[],
  call: (key: string, index: number) => Promise<unknown>,
): Promise<number> {
  const startedAt = performance.now();
  const left = keys.entries();
  const work = async () => {
    for (const [index, key] of left) await call(key, index);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return performance.now() - startedAt;
}
