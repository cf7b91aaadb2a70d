import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { DandelionError } from '../../shared/errors.ts';
import { parseJson } from '../../shared/json.ts';
import type { Database } from '../../shared/stores/database.ts';
import { readDataset } from '../../shared/stores/datasets.ts';
import type { DeploymentSample } from '../../shared/stores/deployment-samples.ts';
import { readPhoto } from '../../shared/stores/images.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { prepareServedModel } from '../../shared/stores/served-model.ts';
import { decodePhoto } from '../../shared/vision/decode.ts';
import type { Ask } from './rollout.ts';

/** A photo with what the model itself says of it. */
export interface CannedRequest {
  photo: Uint8Array;
  probabilities: Record<string, number>;
}

/** Another processor rounds otherwise; a wrong file, order of classes or preprocessing is far beyond this. */
const TOLERANCE = 0.02;
const PROBE_TIMEOUT_MS = 10_000;
const CANNED = 8;

const answer = z.object({
  probabilities: z.record(z.string(), z.number()),
  model: z.object({ version: z.string() }),
});

/**
 * Photos of the model's own test split, scored here by the files that the revision will load, which are made ready for it.
 *
 * @throws DandelionError `model-broken`
 */
export async function cannedRequests(
  stores: { objects: ObjectStore; db: Database },
  model: string,
  version: string,
): Promise<CannedRequest[]> {
  const served = await prepareServedModel(stores.objects, model, version);
  try {
    const { classes, dataset } = served.record;
    const images = await readDataset(stores.db, model, dataset.version, 'test');
    const step = Math.max(1, Math.floor(images.length / CANNED));
    const chosen = images.filter((_image, index) => index % step === 0).slice(0, CANNED);
    const canned: CannedRequest[] = [];
    for (const { sha256 } of chosen) {
      const photo = await readPhoto(stores.objects, sha256);
      const { pixels } = await decodePhoto(photo, { size: served.engine.inputSize });
      const scores = await served.classify(pixels, 1);
      const probabilities = Object.fromEntries(classes.map((label, index) => [label, scores[index] ?? 0]));
      canned.push({ photo, probabilities });
    }
    if (canned.length > 0) return canned;
    throw new DandelionError(
      'model-broken',
      `The test split of dataset ${dataset.version} has no photo to check ${version} with.`,
    );
  } finally {
    await served.close();
  }
}

/**
 * Sends one canned request.
 *
 * @returns what is wrong with the answer, undefined when it is right; and the time to its last byte
 */
export async function probe(
  ask: Ask,
  canned: CannedRequest,
  wanted: { version: string; trace: string; signal: AbortSignal },
): Promise<{ fault: string | undefined; latencyMs: number }> {
  const startedAt = performance.now();
  const traceparent = `00-${wanted.trace}-${randomBytes(8).toString('hex')}-01`;
  const signal = AbortSignal.any([wanted.signal, AbortSignal.timeout(PROBE_TIMEOUT_MS)]);
  try {
    const { status, text } = await ask(canned.photo, traceparent, signal);
    const latencyMs = performance.now() - startedAt;
    return { fault: faultOf(status, text, canned, wanted.version), latencyMs };
  } catch (error) {
    wanted.signal.throwIfAborted();
    // The cluster's API is not the version's fault.
    if (error instanceof DandelionError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    return { fault: `no answer: ${why}`, latencyMs: performance.now() - startedAt };
  }
}

/** One request to each version in turn, so that both meet the same conditions. */
export async function probeRound(
  versions: readonly { ask: Ask; version: string; canned: CannedRequest }[],
  request: { trace: string; signal: AbortSignal },
): Promise<DeploymentSample[]> {
  const samples: DeploymentSample[] = [];
  for (const { ask, version, canned } of versions) {
    const { fault, latencyMs } = await probe(ask, canned, { ...request, version });
    samples.push({ version, ok: fault === undefined, latencyMs });
  }
  return samples;
}

function faultOf(status: number, text: string, canned: CannedRequest, version: string): string | undefined {
  if (status !== 200) return `answered ${status}: ${text.slice(0, 200)}`;
  const parsed = answer.safeParse(parseJson(text));
  if (!parsed.success) return `answered what is no prediction: ${text.slice(0, 200)}`;
  const { model, probabilities } = parsed.data;
  if (model.version !== version) return `${model.version} answered where ${version} was asked`;
  for (const [label, expected] of Object.entries(canned.probabilities)) {
    const given = probabilities[label];
    if (given === undefined || Math.abs(given - expected) > TOLERANCE) {
      return `gives ${label} ${given ?? 'no probability'} where the model's own scoring gives ${expected.toFixed(4)}`;
    }
  }
  return undefined;
}
