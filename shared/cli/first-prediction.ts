import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import type { Platform } from '../local/platform.ts';
import { readDataset } from '../stores/datasets.ts';
import { readPhoto } from '../stores/images.ts';
import type { ModelRecord } from '../stores/models.ts';
import { drawPhoto } from '../vision/drawn.ts';
import type { Prediction } from './report.ts';

const answer = z.object({
  label: z.string(),
  probabilities: z.record(z.string(), z.number()),
  model: z.object({ name: z.string(), version: z.string() }),
  latencyMs: z.number(),
});

/** Loading a model takes a moment, and so does noticing that another one was deployed. */
const patienceMs = 60_000;

/**
 * Has the model that serves classify a photo of its test split, through the gateway as anyone would.
 *
 * @throws DandelionError `upstream-unavailable` when that model does not answer
 */
export async function predictOnce(platform: Platform, record: ModelRecord): Promise<Prediction> {
  const photo = await testPhoto(platform, record);
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const { response, prediction } = await predict(platform.gatewayUrl, photo.bytes);
    if (prediction?.model.version === record.version) {
      const sha256 = createHash('sha256').update(photo.bytes).digest('hex');
      return { ...prediction, expected: photo.expected, sha256 };
    }
    if (Date.now() > deadline) {
      throw new DandelionError(
        'upstream-unavailable',
        `Model ${record.version} does not answer: predict says ${response} (log: ${platform.logsDir}/predict.log).`,
      );
    }
    await sleep(200);
  }
}

async function predict(gatewayUrl: string, bytes: Uint8Array<ArrayBuffer>) {
  const response = await fetch(`${gatewayUrl}/function/predict/`, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body: bytes,
  });
  const text = await response.text();
  const prediction = response.ok ? answer.parse(JSON.parse(text)) : undefined;
  return { response: `${response.status} ${text}`, prediction };
}

async function testPhoto({ database, objects }: Platform, record: ModelRecord) {
  const [image] = await readDataset(database, record.name, record.dataset.version, 'test');
  const bytes = image && (await readPhoto(objects, image.sha256).catch(() => undefined));
  if (image !== undefined && bytes !== undefined) {
    return { bytes: new Uint8Array(bytes), expected: image.label };
  }
  return { bytes: new Uint8Array(await drawPhoto('dandelion', 1)), expected: null };
}
