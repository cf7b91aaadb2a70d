import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  PutBucketNotificationConfigurationCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { objectSettings, readConfig } from '../config.ts';
import type { Event } from '../events.ts';
import { readChampion } from '../stores/models.ts';
import { listRuns } from '../stores/steps.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { describeService } from '../stores/testing-services.ts';
import { drawPhoto } from '../vision/drawn.ts';
import { requestType } from './pipeline.ts';
import { type Platform, startPlatform } from './platform.ts';
import { quickPipelineEnv, waitForPipeline } from './testing-pipelines.ts';

describeService('S3_ENDPOINT', 'photos that are dropped into a bucket', () => {
  const settings = readConfig(objectSettings);
  const bucket = `test-${randomBytes(6).toString('hex')}`;
  const client = new S3Client({
    endpoint: settings.S3_ENDPOINT ?? '',
    region: settings.S3_REGION,
    forcePathStyle: true,
  });
  let folder: string;
  let database: TestDatabase;
  let platform: Platform | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'dandelion-dropped-'));
    database = await testDatabase();
  });
  afterEach(async () => {
    await platform?.stop();
    await database.drop();
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  });

  const put = async (key: string, body: Uint8Array) => {
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body }));
  };

  it('start one pipeline, and a model of them serves from the bucket', async (context) => {
    const { S3_WEBHOOK_ARN: arn, S3_WEBHOOK_PORT: port } = process.env;
    if (arn === undefined || port === undefined) {
      console.warn(
        'SKIPPED: S3_WEBHOOK_ARN and S3_WEBHOOK_PORT are not set: start the S3 server with a webhook to http://127.0.0.1:{port}/hooks/s3.',
      );
      return context.skip();
    }
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    const rules = [{ Name: 'prefix' as const, Value: 'incoming/' }];
    await client.send(
      new PutBucketNotificationConfigurationCommand({
        Bucket: bucket,
        NotificationConfiguration: {
          QueueConfigurations: [
            { QueueArn: arn, Events: ['s3:ObjectCreated:*'], Filter: { Key: { FilterRules: rules } } },
          ],
        },
      }),
    );
    const stores = { DATABASE_URL: database.url, S3_BUCKET: bucket, MODEL_NAME: 'dropped' };
    const env = { ...(await quickPipelineEnv(folder)), ...stores, INGEST_QUIET_MS: '2000' };
    platform = await startPlatform({ dataDir: join(folder, 'data'), port: Number(port), env });
    const requests: Event[] = [];
    platform.broker.onAccepted((event) => {
      if (event.type === requestType) requests.push(event);
    });

    const photos = (['dandelion', 'grass'] as const).flatMap((label) =>
      Array.from({ length: 14 }, (_, seed) => ({ label, seed })),
    );
    await Promise.all(
      photos.map(async ({ label, seed }) =>
        put(`incoming/${label}/IMG ${seed}.jpg`, await drawPhoto(label, seed)),
      ),
    );
    await expect.poll(() => requests.length, { timeout: 60_000 }).toBe(1);
    const [request] = requests as [Event];
    expect(request.data).toMatchObject({ source: { kind: 'folder', uri: `s3://${bucket}/incoming/` } });
    const runs = await waitForPipeline(database.db, request, 60_000);
    expect(runs.ingest?.result?.data).toMatchObject({ images: 28, classes: { dandelion: 14, grass: 14 } });
    expect(runs.deploy?.status).toBe('succeeded');

    const champion = await readChampion(platform.objects, 'dropped');
    const photo = await drawPhoto('grass', 99);
    const answer = await fetch(`${platform.gatewayUrl}/function/predict/`, {
      method: 'POST',
      headers: { 'content-type': 'image/jpeg' },
      body: new Uint8Array(photo),
    });
    expect(await answer.json()).toMatchObject({ model: { version: champion?.champion.version } });
    // What the pipeline itself wrote into the bucket asked for nothing.
    const ingests = await listRuns(database.db, { function: 'ingest' });
    expect(ingests.filter(({ event }) => event.type === requestType)).toHaveLength(1);
  }, 240_000);
});
