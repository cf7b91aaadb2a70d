import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeService } from '../stores/testing-services.ts';
import { examine } from './testing-doctor.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-doctor-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describeService('S3_ENDPOINT', 'the doctor and an S3 server', (url) => {
  const { AWS_ACCESS_KEY_ID = '', AWS_SECRET_ACCESS_KEY = '' } = process.env;
  const right = { S3_ENDPOINT: url, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY };

  test('get on with the right password', async () => {
    expect((await examine(folder, right)).of('Object store')).toMatchObject({ status: 'ok' });
  });

  test('name a wrong password and the cure, and do not show it', async () => {
    const { code, of } = await examine(folder, { ...right, AWS_SECRET_ACCESS_KEY: 'not-the-secret' });
    const finding = of('Object store');
    expect(code).toBe(1);
    expect(finding).toMatchObject({ status: 'trouble', code: 'store-forbidden' });
    expect(finding?.detail).toMatch(/AWS_SECRET_ACCESS_KEY|AWS_ACCESS_KEY_ID/);
    expect(finding?.detail).not.toContain('not-the-secret');
  });
});

describeService('MLFLOW_TRACKING_URI', 'the doctor and an MLflow server', (url) => {
  test('get on', async () => {
    const { of } = await examine(folder, { MLFLOW_TRACKING_URI: url });
    expect(of('Tracking')).toMatchObject({ status: 'ok', version: expect.stringMatching(/^\d+\.\d+/) });
  });
});

describeService('ELASTICSEARCH_URL', 'the doctor and an Elasticsearch', (url) => {
  test('get on', async () => {
    const { of } = await examine(folder, { ELASTICSEARCH_URL: url });
    expect(of('Elasticsearch')).toMatchObject({
      status: 'ok',
      version: expect.stringMatching(/^\d+\.\d+/),
    });
  });
});
