import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Event, runIdOf } from '../../../shared/events.ts';
import { readChain } from '../../../shared/local/pipeline.ts';
import { findStep, type StepRun } from '../../../shared/stores/steps.ts';
import { type TestCluster, until } from '../cluster.ts';
import { followChain, retrainRequest, send, sendWithoutWaiting, storePhotos } from '../pipelines.ts';
import type { Suite } from '../stage.ts';
import { type Row, row, skipped } from '../table.ts';

const LOOK_EVERY_MS = 5000;
const CHAIN_TIMEOUT_MS = 900_000;
/** A request may take 600 s. */
const AS_SERVICE_S = 520;
/** What a training takes on a sliver of a core, by what it takes on a whole one; seen: 1.4 to 1.5. */
const DEARER = 1.3;
/** Of each class: enough work for a limit of some hundredths of a core, which probes and heartbeats still live on. */
const PHOTOS = 1500;
const resourcesOf = {
  jobsinks: {
    api: { group: 'sinks.knative.dev', version: 'v1alpha1', plural: 'jobsinks' },
    path: '/spec/job/spec/template/spec/containers/0/resources',
  },
  services: {
    api: { group: 'serving.knative.dev', version: 'v1', plural: 'services' },
    path: '/spec/template/spec/containers/0/resources',
  },
} as const;

/**
 * The same training twice at once, with so little of a processor that it takes as long as a large one: as a Job for longer
 * than any request may take, and as a Service just below that, its pod held, while every other function goes to zero.
 */
export async function slowTraining(suite: Suite): Promise<Row[]> {
  const { cluster, say, longMinutes } = suite;
  if (longMinutes === 0) {
    const how = 'give --long-minutes 15';
    say(`  SKIPPED: ${how}`);
    return [skipped('slow training as a Job and as a Service', how)];
  }
  const { stored, cpuS } = await trainAtFullSpeed(suite);
  const [asJob, asService] = [cpuLimit(cpuS, longMinutes * 60), cpuLimit(cpuS, AS_SERVICE_S)];
  say(`  ${cpuS.toFixed(1)} s of processor time; the Job gets ${asJob} of a core, the Service ${asService}`);
  const undo = [await limitCpu(cluster, 'jobsinks', asJob), await limitCpu(cluster, 'services', asService)];
  try {
    await until('train has its new limit', () => isRolledOut(cluster), { timeoutMs: 180_000 });
    const again = (executionclass: string): Event => ({
      ...{ ...stored, id: randomBytes(8).toString('hex'), source: '/dandelion/e2e', executionclass },
    });
    const [job, service] = [again('long'), again('short')];
    for (const event of [job, service]) sendWithoutWaiting(suite, event);
    const timeoutMs = longMinutes * 120_000 + CHAIN_TIMEOUT_MS;
    const [ofJob, ofService] = await Promise.all([
      watchTraining(suite, job, 'app.kubernetes.io/name', timeoutMs),
      watchTraining(suite, service, 'serving.knative.dev/service', timeoutMs),
    ]);
    return [
      rowOf('as a Job', ofJob, { atLeastS: longMinutes * 60 }),
      rowOf('as a Service', ofService, { atLeastS: 300 }),
    ];
  } finally {
    for (const giveBack of undo) await giveBack();
  }
}

/** @returns what preprocess told train, and the processor time of train's whole pod */
async function trainAtFullSpeed(suite: Suite): Promise<{ stored: Event; cpuS: number }> {
  const { cluster, say } = suite;
  const photos = await storePhotos(cluster, PHOTOS, 50_000);
  const request = retrainRequest(cluster.model, photos, 4);
  await send(cluster, request);
  let cpuS = 0;
  const onWait = async () => {
    cpuS = Math.max(cpuS, await processorTimeOf(cluster, 'train'));
  };
  await followChain(cluster, request, { timeoutMs: CHAIN_TIMEOUT_MS, onWait });
  const chain = await readChain(cluster.db, request);
  const stored = chain.find(({ function: name }) => name === 'preprocess')?.run?.result;
  if (stored == null || cpuS === 0) throw new Error('the training at full speed did not end');
  say(`  trained on ${2 * PHOTOS} photos`);
  return { stored, cpuS };
}

async function processorTimeOf({ api, namespace, podsOf }: TestCluster, name: string): Promise<number> {
  const [pod] = await podsOf(name);
  if (pod?.metadata?.name === undefined) return 0;
  const path = `/api/v1/namespaces/${namespace}/pods/${pod.metadata.name}:8012/proxy/metrics`;
  const { text } = await api.call('GET', path, { timeoutMs: 5000 }).catch(() => ({ text: '' }));
  return Number(/^process_cpu_seconds_total(?:\{[^}]*\})? (\S+)/m.exec(text)?.[1] ?? 0);
}

/** Kubernetes knows no less than a hundredth of a core. */
function cpuLimit(cpuS: number, forS: number): string {
  return `${Math.max(10, Math.floor((1000 * DEARER * cpuS) / forS))}m`;
}

/** @returns what gives the limit back that was there */
async function limitCpu(
  { custom, namespace }: TestCluster,
  kind: keyof typeof resourcesOf,
  cpu: string,
): Promise<() => Promise<void>> {
  const { api, path } = resourcesOf[kind];
  const of = { ...api, namespace, name: 'train' };
  const found: unknown = await custom.getNamespacedCustomObject(of);
  const resources = path
    .slice(1)
    .split('/')
    .reduce((at, part) => (at as Record<string, unknown>)[part], found) as { limits: object };
  const put = async (value: object) => {
    await custom.patchNamespacedCustomObject({ ...of, body: [{ op: 'replace', path, value }] });
  };
  await put({ ...resources, requests: { cpu, memory: '512Mi' }, limits: { ...resources.limits, cpu } });
  return () => put(resources);
}

/** Until then requests go to the revision before. */
async function isRolledOut({ custom, namespace }: TestCluster): Promise<boolean> {
  const of = { ...resourcesOf.services.api, namespace, name: 'train' };
  const { metadata, status } = (await custom.getNamespacedCustomObject(of)) as {
    metadata: { generation: number };
    status: {
      observedGeneration: number;
      latestCreatedRevisionName: string;
      latestReadyRevisionName: string;
    };
  };
  const isSeen = status.observedGeneration === metadata.generation;
  return isSeen && status.latestReadyRevisionName === status.latestCreatedRevisionName;
}

/** One training, as it was seen from outside. */
interface Watched {
  run: StepRun | undefined;
  tookS: number;
  /** Pods that worked on it, by name. */
  pods: Set<string>;
  /** Fewest pods of other functions that were there at once. */
  others: number;
}

async function watchTraining(
  { cluster, say }: Suite,
  event: Event,
  label: string,
  timeoutMs: number,
): Promise<Watched> {
  const id = runIdOf('train', event.source, event.id);
  const watched: Watched = { run: undefined, tookS: 0, pods: new Set(), others: Number.POSITIVE_INFINITY };
  const deadline = Date.now() + timeoutMs;
  let told = 0;
  while (Date.now() < deadline) {
    await sleep(LOOK_EVERY_MS);
    // Of an API server or a database that is away for a moment nothing is learnt.
    const run = await findStep(cluster.db, 'train', id).catch(() => watched.run);
    watched.run = run;
    if (run?.startedAt != null) {
      watched.tookS =
        (Date.parse(run.finishedAt ?? new Date().toISOString()) - Date.parse(run.createdAt)) / 1000;
    }
    if (run?.status === 'succeeded' || (run?.status === 'failed' && run.final)) break;
    if (run?.status !== 'running') continue;
    await look(cluster, label, watched).catch(() => {});
    if (watched.tookS - told < 60) continue;
    told = watched.tookS;
    say(
      `  ${event.executionclass}: ${told.toFixed(0)} s, attempt ${run.attempt}, ${watched.others} other pods at least`,
    );
  }
  return watched;
}

async function look(cluster: TestCluster, label: string, watched: Watched): Promise<void> {
  const labelSelector = 'serving.knative.dev/service';
  const { items } = await cluster.core.listNamespacedPod({ namespace: cluster.namespace, labelSelector });
  const others = items.filter(({ metadata }) => metadata?.labels?.[labelSelector] !== 'train');
  watched.others = Math.min(watched.others, others.length);
  const isJob = label !== labelSelector;
  for (const { metadata, status } of await cluster.podsOf('train', label)) {
    // Those of earlier Jobs stay for their logs.
    if (status?.phase !== 'Running') continue;
    // The Service's pods carry the name of the function, too.
    if (isJob && metadata?.labels?.[labelSelector] !== undefined) continue;
    watched.pods.add(metadata?.name ?? '');
  }
}

function rowOf(way: string, watched: Watched, { atLeastS }: { atLeastS: number }): Row {
  const { run, tookS, pods, others } = watched;
  const ok = run?.status === 'succeeded' && run.attempt === 1 && tookS >= atLeastS && others === 0;
  return row(
    `slow training ${way}`,
    `${run?.status ?? 'lost'} after ${tookS.toFixed(0)} s, attempt ${run?.attempt}, ${pods.size} pod, ${others} others`,
    `${atLeastS} s or more, attempt 1, all else at zero`,
    ok,
  );
}
