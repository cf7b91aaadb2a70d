import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import { revisionName } from '../stores/deployments.ts';
import type { KubernetesApi } from './kubernetes-api.ts';

const VERSION_LABEL = 'dandelion.dev/model-version';

const target = z.object({
  revisionName: z.string().optional(),
  percent: z.number().default(0),
  tag: z.string().optional(),
  url: z.string().optional(),
});
const service = z.object({
  metadata: z.object({ generation: z.number() }),
  spec: z.object({ traffic: z.array(target).default([]) }),
  status: z
    .object({
      url: z.string().optional(),
      observedGeneration: z.number().optional(),
      traffic: z.array(target).default([]),
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
    })
    .optional(),
});
const template = z.object({ data: z.object({ 'service.yaml': z.string() }) });
const revision = z.object({
  metadata: z.object({ labels: z.record(z.string(), z.string()).default({}) }),
});

/** Who gets the traffic of the predict Service. */
export interface PredictTraffic {
  /** Public address; undefined until Knative has given it one. */
  url: string | undefined;
  /** True when the traffic is where the Service wants it. */
  settled: boolean;
  targets: { version: string; revision: string; percent: number; tag: string | undefined }[];
}

/** Reads the predict Service. @returns undefined when there is none yet */
export async function readPredictTraffic(
  api: KubernetesApi,
  namespace: string,
): Promise<PredictTraffic | undefined> {
  const found = await read(api, `${namespace}/services/predict`, service);
  if (found === undefined) return undefined;
  const { metadata, status } = found;
  const targets = [];
  for (const { revisionName: name, percent, tag } of status?.traffic ?? []) {
    if (name === undefined) continue;
    const labels = (await read(api, `${namespace}/revisions/${name}`, revision))?.metadata.labels;
    targets.push({ version: labels?.[VERSION_LABEL] ?? '', revision: name, percent, tag });
  }
  const isReady = status?.conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True');
  const settled = isReady === true && status?.observedGeneration === metadata.generation;
  return { url: status?.url, settled, targets };
}

/**
 * The revision that a version has, or would get, from the template of the predict Service as it is now.
 *
 * @throws DandelionError `bad-config` when the namespace has no template
 */
export async function readWantedRevision(
  api: KubernetesApi,
  namespace: string,
  version: string,
): Promise<string> {
  const { status, text } = await api.call(
    'GET',
    `/api/v1/namespaces/${namespace}/configmaps/predict-template`,
  );
  if (status !== 200) {
    const sentence = `The ConfigMap predict-template of namespace ${namespace} cannot be read: Kubernetes answered ${status}.`;
    throw new DandelionError('bad-config', sentence);
  }
  return revisionName('predict', version, template.parse(JSON.parse(text)).data['service.yaml']);
}

/**
 * Waits until one version has all the traffic.
 *
 * @param wanted its version, or undefined for any other than `not`
 * @param revision its revision, where not any will do
 * @param check called while it waits; throws to end the wait
 * @throws DandelionError `time-limit`
 */
export async function untilServing(
  api: KubernetesApi,
  namespace: string,
  {
    wanted,
    not,
    revision: only,
    timeoutMs,
    check,
  }: {
    wanted?: string | undefined;
    not?: string | undefined;
    revision?: string;
    timeoutMs: number;
    check?: () => Promise<void>;
  },
): Promise<string> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const traffic = await readPredictTraffic(api, namespace);
    const sole = traffic?.settled ? traffic.targets.find(({ percent }) => percent === 100) : undefined;
    const isRight = only === undefined || (sole?.revision === only && sole.tag === 'champion');
    const version = isRight ? sole?.version : undefined;
    if (version !== undefined && (wanted === undefined ? version !== not : version === wanted))
      return version;
    if (Date.now() > deadline) {
      const now = traffic?.targets.map(({ version, percent }) => `${version} ${percent} %`).join(', ');
      throw new DandelionError(
        'time-limit',
        `${wanted ?? 'Another version'} did not get the traffic within ${timeoutMs} ms; it goes to ${now ?? 'nobody'}.`,
      );
    }
    await check?.();
    await sleep(250);
  }
}

async function read<Schema extends z.ZodType>(
  api: KubernetesApi,
  path: string,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  const { status, text } = await api.call('GET', `/apis/serving.knative.dev/v1/namespaces/${path}`);
  if (status === 404) return undefined;
  if (status !== 200) {
    throw new DandelionError('upstream-unavailable', `Kubernetes answered ${status}: ${text.slice(0, 300)}`);
  }
  return schema.parse(JSON.parse(text));
}
