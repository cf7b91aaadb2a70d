import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AppsV1Api,
  CoreV1Api,
  CustomObjectsApi,
  KubeConfig,
  PortForward,
  type V1Pod,
} from '@kubernetes/client-node';
import { type KubernetesApi, openKubernetesApi } from '../../shared/cli/kubernetes-api.ts';
import { DandelionError } from '../../shared/errors.ts';
import { type Database, openDatabase } from '../../shared/stores/database.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';

/** A cluster with the product in it, reached through its kubeconfig alone. */
export interface TestCluster {
  namespace: string;
  model: string;
  bucket: string;
  api: KubernetesApi;
  custom: CustomObjectsApi;
  core: CoreV1Api;
  apps: AppsV1Api;
  db: Database;
  objects: ObjectStore;
  /** Pods of a function, or of whatever has this label's value. */
  podsOf(name: string, label?: string): Promise<V1Pod[]>;
  /** Deletes a pod without a chance to finish. */
  kill(pod: V1Pod): Promise<void>;
  close(): Promise<void>;
}

const SERVICE_LABEL = 'serving.knative.dev/service';
const knativeServices = { group: 'serving.knative.dev', version: 'v1', plural: 'services' } as const;

/** @throws DandelionError `bad-config` when the cluster has no Dandelion with stores in it */
export async function openTestCluster(): Promise<TestCluster> {
  const api = await openKubernetesApi();
  const config = new KubeConfig();
  config.loadFromDefault();
  const core = config.makeApiClient(CoreV1Api);
  const namespace = process.env.E2E_NAMESPACE ?? api.namespace ?? 'dandelion';
  const settings = (
    await core.readNamespacedConfigMap({ name: 'dandelion-settings', namespace }).catch(nothing)
  )?.data;
  const secret = (await core.readNamespacedSecret({ name: 'dandelion-stores', namespace }).catch(nothing))
    ?.data;
  if (settings === undefined || secret === undefined) {
    throw new DandelionError(
      'bad-config',
      `Namespace ${namespace} has no Dandelion: kubectl apply -k knative/overlays/kind, or name another one by E2E_NAMESPACE.`,
    );
  }
  const secretOf = (name: string) => Buffer.from(secret[name] ?? '', 'base64').toString();
  const forwards: Server[] = [];
  const forwarded = async (address: string): Promise<string> => {
    const url = new URL(address);
    const port = Number(url.port || 80);
    const server = await forwardPort(config, core, {
      namespace,
      service: url.hostname.split('.')[0] ?? '',
      port,
    });
    forwards.push(server);
    const bound = server.address();
    url.hostname = '127.0.0.1';
    url.port = String(typeof bound === 'object' ? bound?.port : '');
    return url.href.replace(/\/$/, '');
  };
  const db = await openDatabase(await forwarded(secretOf('DATABASE_URL')));
  const bucket = settings.S3_BUCKET ?? 'dandelion';
  const objects = openObjects({
    OBJECTS_DIR: '',
    S3_ENDPOINT: await forwarded(settings.S3_ENDPOINT ?? ''),
    S3_BUCKET: bucket,
    S3_REGION: settings.S3_REGION ?? 'us-east-1',
    AWS_ACCESS_KEY_ID: secretOf('AWS_ACCESS_KEY_ID'),
    AWS_SECRET_ACCESS_KEY: secretOf('AWS_SECRET_ACCESS_KEY'),
  });
  return {
    ...{ namespace, model: settings.MODEL_NAME ?? 'dandelion', bucket, api, core, db, objects },
    custom: config.makeApiClient(CustomObjectsApi),
    apps: config.makeApiClient(AppsV1Api),
    async podsOf(name, label = SERVICE_LABEL) {
      const { items } = await core.listNamespacedPod({ namespace, labelSelector: `${label}=${name}` });
      return items.filter(({ metadata }) => metadata?.deletionTimestamp === undefined);
    },
    async kill({ metadata }) {
      const name = metadata?.name ?? '';
      await core.deleteNamespacedPod({ name, namespace, gracePeriodSeconds: 0 }).catch(nothing);
    },
    async close() {
      await db.end({ timeout: 1 });
      for (const server of forwards) server.close();
    },
  };
}

const nothing = (): undefined => undefined;

/** Listens on a free port of this machine; each connection is a forward of its own to the pod behind a Service. */
async function forwardPort(
  config: KubeConfig,
  core: CoreV1Api,
  target: { namespace: string; service: string; port: number },
): Promise<Server> {
  const { namespace, service, port } = target;
  const found = await core.readNamespacedService({ name: service, namespace }).catch(nothing);
  const selector = found?.spec?.selector;
  if (selector === undefined) {
    throw new DandelionError(
      'bad-config',
      `Namespace ${namespace} has no Service ${service} with pods behind it.`,
    );
  }
  const labelSelector = Object.entries(selector)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');
  const forward = new PortForward(config);
  const connect = async (socket: Socket): Promise<void> => {
    const { items } = await core.listNamespacedPod({ namespace, labelSelector });
    const pod = items.find(({ status }) => status?.phase === 'Running')?.metadata?.name;
    if (pod === undefined) throw new Error(`no pod of ${service} runs`);
    await forward.portForward(namespace, pod, [port], socket, null, socket);
  };
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    connect(socket).catch(() => socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** Waits until the condition holds. @throws Error naming what did not come */
export async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  { timeoutMs, everyMs = 250 }: { timeoutMs: number; everyMs?: number },
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await sleep(everyMs);
  }
}

/** Creates a Knative Service, in the place of an older one. */
export async function createService(cluster: TestCluster, name: string, spec: object): Promise<void> {
  const { custom, namespace } = cluster;
  await deleteService(cluster, name);
  const body = { apiVersion: 'serving.knative.dev/v1', kind: 'Service', metadata: { name }, spec };
  await custom.createNamespacedCustomObject({ ...knativeServices, namespace, body });
}

/** As {@link createService}, and waits until it is ready. @returns its host at the ingress */
export async function applyService(cluster: TestCluster, name: string, spec: object): Promise<string> {
  await createService(cluster, name, spec);
  await until(`Service ${name} gets ready`, async () => (await readService(cluster, name)).ready, {
    timeoutMs: 180_000,
  });
  return readServiceHost(cluster, name);
}

/** The host of a Service at the ingress. */
export async function readServiceHost(cluster: TestCluster, name: string): Promise<string> {
  const { url } = await readService(cluster, name);
  if (url === undefined) throw new Error(`Service ${name} has no address`);
  return new URL(url).host;
}

async function readService(
  { custom, namespace }: TestCluster,
  name: string,
): Promise<{ url: string | undefined; ready: boolean }> {
  const { status } = (await custom.getNamespacedCustomObject({ ...knativeServices, namespace, name })) as {
    status?: { url?: string; conditions?: { type: string; status: string }[] };
  };
  const ready =
    status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
  return { url: status?.url, ready };
}

export async function deleteService(cluster: TestCluster, name: string): Promise<void> {
  const { custom, namespace } = cluster;
  await custom.deleteNamespacedCustomObject({ ...knativeServices, namespace, name }).catch(nothing);
  await until(`Service ${name} goes`, async () => (await cluster.podsOf(name)).length === 0, {
    timeoutMs: 120_000,
  });
}

/** The spec of a Knative Service. */
export async function readServiceSpec(cluster: TestCluster, name: string): Promise<{ template: unknown }> {
  const { custom, namespace } = cluster;
  const found = await custom.getNamespacedCustomObject({ ...knativeServices, namespace, name });
  return (found as { spec: { template: unknown } }).spec;
}
