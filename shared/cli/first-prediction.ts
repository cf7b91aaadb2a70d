import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { parseJson } from '../json.ts';
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

const refusal = z.object({ code: z.string(), detail: z.string() });

/** Loading a model takes a moment, and so does noticing that another one was deployed. */
const patienceMs = 60_000;

/**
 * Has the model that serves classify a photo of its test split, through the gateway as anyone would.
 *
 * @throws DandelionError `model-broken` when predict cannot load it, `upstream-unavailable` when it does not answer
 */
export async function predictOnce(platform: Platform, record: ModelRecord): Promise<Prediction> {
  const photo = await testPhoto(platform, record);
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const { prediction, problem } = await predict(platform.gatewayUrl, photo.bytes);
    if (prediction?.model.version === record.version) {
      const sha256 = createHash('sha256').update(photo.bytes).digest('hex');
      return { ...prediction, expected: photo.expected, sha256 };
    }
    const isBroken = problem?.code === 'model-broken' && problem.detail.includes(record.version);
    if (isBroken || Date.now() > deadline) {
      const instead = prediction && `version ${prediction.model.version} does`;
      throw new DandelionError(
        isBroken ? 'model-broken' : 'upstream-unavailable',
        `Model ${record.version} does not answer: ${instead ?? problem?.detail} (log: ${platform.logsDir}/predict.log)`,
      );
    }
    await sleep(200);
  }
}

async function predict(
  gatewayUrl: string,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<{ prediction?: z.infer<typeof answer>; problem?: z.infer<typeof refusal> }> {
  const response = await fetch(`${gatewayUrl}/function/predict/`, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body: bytes,
  });
  if (response.ok) return { prediction: answer.parse(await response.json()) };
  const said = await response.text();
  const { data: problem = { code: String(response.status), detail: said } } = refusal.safeParse(
    parseJson(said),
  );
  return { problem };
}

async function testPhoto({ database, objects }: Platform, record: ModelRecord) {
  const [image] = await readDataset(database, record.name, record.dataset.version, 'test');
  const bytes = image && (await readPhoto(objects, image.sha256).catch(() => undefined));
  if (image !== undefined && bytes !== undefined) {
    return { bytes: new Uint8Array(bytes), expected: image.label };
  }
  return { bytes: new Uint8Array(await drawPhoto('dandelion', 1)), expected: null };
}
