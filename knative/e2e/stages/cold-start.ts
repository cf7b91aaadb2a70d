import { z } from 'zod';
import { applyService, deleteService, readServiceSpec, until } from '../cluster.ts';
import type { Suite } from '../stage.ts';
import { measured, type Row, row, skipped } from '../table.ts';
import { quantile } from '../traffic.ts';

/** Several of each, so that one is measured while the others go to zero. */
const COPIES = 3;
const TO_ZERO_TIMEOUT_MS = 180_000;
/** As soon as Knative allows; how a function starts does not depend on it. */
export const quickToZero = {
  'autoscaling.knative.dev/window': '6s',
  'autoscaling.knative.dev/scale-to-zero-pod-retention-period': '0s',
  'autoscaling.knative.dev/min-scale': '0',
};
/** What published figures of cold starts are of: a server of a few lines on the same runtime. */
const HELLO = `process.on('SIGTERM', () => process.exit());
require('node:http').createServer((request, response) => {
  request.resume().on('end', () => response.end('hello'));
}).listen(process.env.PORT);`;

/** Of a Service's revisions, as far as it is made again here. */
export interface Template {
  metadata: { name?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    containers: { image: string; command?: string[]; args?: string[]; env?: { name: string }[] }[];
  };
}

/** First request after zero, beside a hello-world server in the same minutes. */
export async function coldStart(suite: Suite): Promise<Row[]> {
  const { cluster, ingress, photo, cycles, say } = suite;
  const { template } = (await readServiceSpec(cluster, 'predict')) as { template: Template };
  const [container] = template.spec.containers;
  if (container === undefined) throw new Error('the predict Service has no container');
  const { name: _pinned, annotations, labels } = template.metadata;
  const metadata = { labels, annotations: { ...annotations, ...quickToZero } };
  const hello = {
    metadata,
    spec: {
      enableServiceLinks: false,
      containers: [
        { image: container.image, command: ['node', '-e', HELLO], ports: [{ containerPort: 8080 }] },
      ],
    },
  };
  const names = (kind: string) => Array.from({ length: COPIES }, (_, index) => `e2e-${kind}-${index}`);
  const kinds = { predict: { metadata, spec: template.spec }, hello };
  const hosts = new Map<string, string>();
  try {
    for (const [kind, of] of Object.entries(kinds)) {
      for (const name of names(kind)) hosts.set(name, await applyService(cluster, name, { template: of }));
    }
    const latencies: Record<string, number[]> = { predict: [], hello: [] };
    const starts: Start[] = [];
    const failures: string[] = [];
    for (let cycle = 0; cycle < cycles; cycle++) {
      for (const kind of ['hello', 'predict']) {
        const name = `e2e-${kind}-${cycle % COPIES}`;
        await untilZero(suite, name);
        const sentAt = Date.now();
        const { status, text, latencyMs } = await ingress.post(hosts.get(name) ?? '', photo);
        latencies[kind]?.push(latencyMs);
        if (status !== 200) failures.push(`${name} answered ${status}: ${text.slice(0, 200)}`);
        say(`  ${cycle + 1}/${cycles} ${kind.padEnd(7)} ${(latencyMs / 1000).toFixed(2)} s`);
        const start = kind === 'predict' ? await startOf(suite, name, sentAt, latencyMs) : undefined;
        if (start !== undefined) starts.push(start);
      }
    }
    for (const failure of failures) say(`  ${failure}`);
    return [...rowsOf(latencies.predict ?? [], latencies.hello ?? [], failures.length), ...partsOf(starts)];
  } finally {
    for (const name of hosts.keys()) await deleteService(cluster, name);
  }
}

/** Where the time of one cold start went, in milliseconds. */
interface Start {
  /** Activator, autoscaler, scheduler, container. */
  untilProcess: number;
  /** Node and the bundle. */
  untilInit: number;
  /** The model: fetched, checked, opened, run once. */
  init: number;
  /** Probe, activator, the answer itself. */
  untilAnswer: number;
}

const readyLine = z.object({
  '@timestamp': z.string(),
  'event.action': z.literal('init'),
  'event.duration': z.number(),
  sinceStartMs: z.number(),
});

/** Reads the line that a function writes when it is ready; the clocks are one where the cluster is on this machine. */
async function startOf(
  { cluster }: Suite,
  service: string,
  sentAt: number,
  latencyMs: number,
): Promise<Start | undefined> {
  const { core, namespace } = cluster;
  const [pod] = await cluster.podsOf(service);
  const name = pod?.metadata?.name ?? '';
  const log = await core.readNamespacedPodLog({ name, namespace, container: 'predict' }).catch(() => '');
  for (const line of log.split('\n')) {
    const ready = readyLine.safeParse(line.startsWith('{') ? JSON.parse(line) : undefined).data;
    if (ready === undefined) continue;
    const readyMs = Date.parse(ready['@timestamp']) - sentAt;
    const init = ready['event.duration'] / 1e6;
    return {
      untilProcess: readyMs - ready.sinceStartMs,
      untilInit: ready.sinceStartMs - init,
      init,
      untilAnswer: latencyMs - readyMs,
    };
  }
  return undefined;
}

/** Waits until a Service has no pod, not even one that ends. */
export async function untilZero({ cluster }: Suite, name: string): Promise<void> {
  const { core, namespace } = cluster;
  const labelSelector = `serving.knative.dev/service=${name}`;
  const isAtZero = async () =>
    (await core.listNamespacedPod({ namespace, labelSelector })).items.length === 0;
  await until(`${name} goes to zero`, isAtZero, { timeoutMs: TO_ZERO_TIMEOUT_MS });
}

function partsOf(starts: readonly Start[]): Row[] {
  const median = (part: keyof Start) =>
    `${quantile(
      starts.map((start) => start[part]),
      0.5,
    ).toFixed(0)} ms`;
  if (starts.length === 0) return [skipped('  the parts of it', 'no log of a pod told when it was ready')];
  return [
    measured('  of it until the process runs', median('untilProcess')),
    measured('  Node and the bundle', median('untilInit')),
    measured('  the model', median('init')),
    measured('  probe, activator, answer', median('untilAnswer')),
  ];
}

function rowsOf(predict: number[], hello: number[], failures: number): Row[] {
  const seconds = (values: number[], share: number) => quantile(values, share) / 1000;
  const of = (values: number[]) =>
    `${seconds(values, 0.5).toFixed(2)} / ${seconds(values, 0.95).toFixed(2)} s`;
  const ratio = seconds(predict, 0.5) / seconds(hello, 0.5);
  return [
    measured('cold start of hello world, p50 / p95', of(hello)),
    row('cold start of predict, p50 / p95', of(predict), 'p95 under 2 s', seconds(predict, 0.95) < 2),
    row('predict over hello world, p50', ratio.toFixed(2), 'at most 1.25', ratio <= 1.25),
    row('failed first requests', `${failures} of ${predict.length + hello.length}`, '0', failures === 0),
  ];
}
