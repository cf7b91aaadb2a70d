import { randomBytes } from 'node:crypto';
import { request } from 'node:http';
import { CreateBucketCommand, HeadBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { expect, it } from 'vitest';
import { objectSettings, readConfig } from '../config.ts';
import { openObjects } from './objects.ts';
import { openS3 } from './objects-s3.ts';
import { describeObjectStore } from './testing-objects.ts';
import { describeService } from './testing-services.ts';

describeService('S3_ENDPOINT', 'S3', () => {
  const settings = readConfig(objectSettings);
  const freshBucket = () => `test-${randomBytes(6).toString('hex')}`;
  const bucket = freshBucket();
  const opened = (changes: Partial<typeof settings> = {}) =>
    openObjects({ ...settings, S3_BUCKET: bucket, ...changes });
  const client = new S3Client({
    endpoint: settings.S3_ENDPOINT ?? '',
    region: settings.S3_REGION,
    forcePathStyle: true,
  });

  describeObjectStore('the object store on S3', async () => opened());
  const byTheSdk = { ...settings, S3_ENDPOINT: settings.S3_ENDPOINT ?? '', S3_BUCKET: freshBucket() };
  describeObjectStore('the object store on S3, by the SDK alone', async () => openS3(byTheSdk));

  it('makes its bucket at whatever use comes first, many at once', async () => {
    const fresh = { S3_BUCKET: freshBucket() };
    await Promise.all(Array.from({ length: 8 }, (_, n) => opened(fresh).put(`a/${n}`, Buffer.from('x'))));
    await client.send(new HeadBucketCommand({ Bucket: fresh.S3_BUCKET }));
    const nothing = { code: 'object-missing' };
    await expect(opened({ S3_BUCKET: freshBucket() }).get('none')).rejects.toMatchObject(nothing);
    expect(await opened({ S3_BUCKET: freshBucket() }).head('none')).toBeUndefined();
    const condition = { etag: null };
    const first = await opened({ S3_BUCKET: freshBucket() }).putIf('p', Buffer.from('x'), condition);
    expect(first.won).toBe(true);
    await opened({ S3_BUCKET: freshBucket() }).putStream('s', chunks());
  });

  it('uses a bucket that is there', async () => {
    const fresh = { S3_BUCKET: freshBucket() };
    await client.send(new CreateBucketCommand({ Bucket: fresh.S3_BUCKET }));
    await opened(fresh).put('a', Buffer.from('x'));
    expect((await opened(fresh).get('a')).bytes.toString()).toBe('x');
  });

  it('reads what others wrote without checksums', async () => {
    const plain = new S3Client({
      endpoint: settings.S3_ENDPOINT ?? '',
      region: settings.S3_REGION,
      forcePathStyle: true,
      requestChecksumCalculation: 'WHEN_REQUIRED',
    });
    await opened().put('before', Buffer.from('x'));
    await plain.send(new PutObjectCommand({ Bucket: bucket, Key: 'foreign', Body: 'plain' }));
    expect((await opened().get('foreign')).bytes.toString()).toBe('plain');
  });

  it.each([{ AWS_SECRET_ACCESS_KEY: 'not-the-secret' }, { AWS_ACCESS_KEY_ID: 'nobody' }])(
    'names wrong credentials and the cure: %j',
    async (wrong) => {
      const store = opened(wrong);
      const refused = {
        code: 'store-forbidden',
        message: expect.stringMatching(`${settings.S3_ENDPOINT}.*AWS_ACCESS_KEY_ID`),
      };
      await expect(store.put('a', Buffer.from('x'))).rejects.toMatchObject(refused);
      await expect(store.get('a')).rejects.toMatchObject(refused);
      await expect(store.head('a')).rejects.toMatchObject(refused);
      await expect(store.list('a')[Symbol.asyncIterator]().next()).rejects.toMatchObject(refused);
      await expect(store.putIf('a', Buffer.from('x'), { etag: null })).rejects.toMatchObject(refused);
      await expect(store.putStream('a', chunks())).rejects.toMatchObject(refused);
    },
  );

  it('gives addresses that take exactly the bytes they were asked for', async () => {
    const key = 'incoming/dandelion/IMG 1.jpg';
    const photo = randomBytes(20_000);
    const grant = await opened().presignPut(key, { sizeBytes: photo.length, expiresMs: 60_000 });
    expect(Date.parse(grant.expiresAt)).toBeGreaterThan(Date.now());
    expect(await upload(grant.url, randomBytes(20_001))).toBe(403);
    expect(await opened().head(key)).toBeUndefined();
    const response = await fetch(grant.url, { method: grant.method, headers: grant.headers, body: photo });
    expect(response.status).toBe(200);
    expect((await opened().get(key)).bytes.equals(photo)).toBe(true);
  });

  it('gives addresses that expire', async () => {
    const grant = await opened().presignPut('incoming/dandelion/2.jpg', { sizeBytes: 1, expiresMs: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect(await upload(grant.url, Buffer.from('x'))).toBe(403);
  });

  async function* chunks() {
    yield Buffer.from('x');
  }
});

/** PUT as any program does it; `fetch` follows no wrong length. */
function upload(url: string, bytes: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: 'PUT', headers: { 'content-length': bytes.length } }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end(bytes);
  });
}
