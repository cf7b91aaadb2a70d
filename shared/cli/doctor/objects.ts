import { randomUUID } from 'node:crypto';
import { join, resolve } from 'node:path';
import { openObjects } from '../../stores/objects.ts';
import { type Check, type Finding, timed } from './check.ts';
import { lookAtFolder } from './folders.ts';
import { ask } from './http.ts';
import type { DoctorSettings } from './settings.ts';

export const objects: Check = {
  name: 'Object store',
  variable: 'S3_ENDPOINT',
  look: (settings) => {
    const { S3_ENDPOINT: endpoint, OBJECTS_DIR, dataDir } = settings;
    if (endpoint !== undefined) return lookAtServer({ ...settings, S3_ENDPOINT: endpoint });
    return lookAtFolder(resolve(OBJECTS_DIR ?? join(dataDir, 'objects')), 'OBJECTS_DIR');
  },
};

/** Proves the right to read, write and delete with an object of its own; the bucket is not made. */
async function lookAtServer(settings: DoctorSettings & { S3_ENDPOINT: string }): Promise<Finding> {
  const { S3_ENDPOINT: endpoint, S3_BUCKET: bucket } = settings;
  // Answers without credentials tell the time and, mostly, who answers.
  const { headers, clockAheadMs } = await ask(endpoint, { name: 'The S3 server', variable: 'S3_ENDPOINT' });
  const { seekBucket } = await import('../../stores/objects-s3.ts');
  const { answer: isThere, latencyMs } = await timed(() => seekBucket(settings));
  const server = headers.get('server');
  const common = {
    status: 'ok' as const,
    latencyMs,
    ...(server === null ? {} : { version: server }),
    ...(clockAheadMs === undefined ? {} : { clockAheadMs }),
  };
  if (!isThere) {
    return { ...common, detail: `${endpoint} has no bucket "${bucket}" yet: it is made at the first use` };
  }
  const store = openObjects(settings);
  const key = `doctor/${randomUUID()}`;
  await store.put(key, Buffer.from('probe'));
  await store.get(key);
  await store.delete(key);
  return { ...common, detail: store.place };
}
