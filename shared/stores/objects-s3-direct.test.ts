import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ObjectStore, openObjects } from './objects.ts';
import { openS3 } from './objects-s3.ts';
import { startTestBucket, type TestBucket, testKeys, testRegion } from './testing-bucket.ts';

let bucket: TestBucket;
beforeEach(async () => {
  bucket = await startTestBucket();
});
afterEach(() => {
  bucket.close();
  vi.unstubAllEnvs();
});

const settings = (changes: Record<string, string> = {}) => ({
  ...{ S3_ENDPOINT: bucket.endpoint, S3_BUCKET: 'flowers', S3_REGION: testRegion },
  ...{ ...testKeys, ...changes },
});
const bytes = Buffer.from('the bytes of an object');
const photo = "incoming/Löwenzahn & Co/IMG 1 (2)+#100%?~*'!.jpg";

const ways: [string, (changes?: Record<string, string>) => ObjectStore][] = [
  ['directly', (changes) => openObjects(settings(changes))],
  ['by the SDK', (changes) => openS3(settings(changes))],
];

describe.each(ways)('an object read %s', (_way, open) => {
  it.each(['a', 'models/dandelion/v0123456789/model.json', photo])('is what was put as %s', async (key) => {
    const objects = open();
    await objects.put(key, bytes);
    const { bytes: read, etag } = await objects.get(key);
    expect(read).toEqual(bytes);
    expect((await objects.putIf(key, bytes, { etag })).won).toBe(true);
  });

  it('may be empty, and a megabyte', async () => {
    const objects = open();
    for (const size of [0, 1_000_000]) {
      const many = Buffer.alloc(size, 'x');
      await objects.put('a', many);
      expect((await objects.get('a')).bytes.equals(many)).toBe(true);
    }
  });

  it('is missing by name', async () => {
    const missing = { code: 'object-missing', message: expect.stringContaining('models/none') };
    await expect(open().get('models/none')).rejects.toMatchObject(missing);
  });

  it('is refused to the wrong secret, with the cure', async () => {
    const refused = { code: 'store-forbidden', message: expect.stringContaining('AWS_SECRET_ACCESS_KEY') };
    await expect(open({ AWS_SECRET_ACCESS_KEY: 'wrong' }).get('a')).rejects.toMatchObject(refused);
  });

  it('carries the token of a session', async () => {
    const objects = open({ AWS_SESSION_TOKEN: 'token+/=' });
    await objects.put('a', bytes);
    expect((await objects.get('a')).bytes).toEqual(bytes);
  });

  it('is corrupt when its checksum is of other bytes', async () => {
    const objects = open();
    await objects.put('a', bytes);
    bucket.headers['x-amz-checksum-crc32'] = 'AAAAAA==';
    await expect(objects.get('a')).rejects.toMatchObject({ code: 'object-corrupt' });
  });

  it('is read whole when its checksum is of the parts of an upload', async () => {
    const objects = open();
    await objects.put('a', bytes);
    bucket.headers['x-amz-checksum-crc32'] = 'AAAAAA==-3';
    bucket.headers['x-amz-checksum-type'] = 'COMPOSITE';
    expect((await objects.get('a')).bytes).toEqual(bytes);
  });
});

describe('reads without the SDK', () => {
  it('ask once each, over a connection that stays', async () => {
    const objects = openObjects(settings());
    await objects.put('a', bytes);
    await expect(objects.get('none')).rejects.toMatchObject({ code: 'object-missing' });
    const before = bucket.connections();
    for (let reads = 0; reads < 3; reads++) await objects.get('a');
    expect(bucket.requests).toEqual([
      ...['PUT /flowers/a (SDK)', 'GET /flowers/none', ...Array(3).fill('GET /flowers/a')],
    ]);
    expect(bucket.connections()).toBe(before);
  });

  it('leave to the SDK what is not simple', async () => {
    const objects = openObjects(settings());
    await objects.put('a', bytes);
    bucket.headers['x-amz-checksum-crc64nvme'] = 'AAAAAAAAAAA=';
    expect((await objects.get('a')).bytes).toEqual(bytes);
    expect(bucket.requests.slice(1)).toEqual(['GET /flowers/a', 'GET /flowers/a (SDK)']);
  });

  it('are none where the keys are not given, as with the roles of pods', async () => {
    const { AWS_ACCESS_KEY_ID: _id, AWS_SECRET_ACCESS_KEY: _secret, ...unkeyed } = settings();
    for (const [name, value] of Object.entries(testKeys)) vi.stubEnv(name, value);
    const objects = openObjects(unkeyed);
    await objects.put('a', bytes);
    await objects.get('a');
    expect(bucket.requests).toEqual(['PUT /flowers/a (SDK)', 'GET /flowers/a (SDK)']);
  });
});
