import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { DandelionError } from '../../shared/errors.ts';
import { pause } from '../../shared/function/abort.ts';

const API = { group: 'serving.knative.dev', version: 'v1' } as const;
const NAMESPACE_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace';
const CALL_TIMEOUT_MS = 10_000;
/** Waits between the tries of one call while the API is down: about half a minute together. */
const BACK_OFF_MS = [500, 1000, 2000, 4000, 8000, 16_000];

const condition = z.looseObject({
  type: z.string(),
  status: z.string(),
  reason: z.string().optional(),
  message: z.string().optional(),
});
const metadata = z.looseObject({
  name: z.string(),
  generation: z.number().optional(),
  creationTimestamp: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
const traffic = z.looseObject({
  revisionName: z.string().optional(),
  percent: z.number().optional(),
  tag: z.string().optional(),
  url: z.string().optional(),
});
const status = z.looseObject({
  observedGeneration: z.number().optional(),
  conditions: z.array(condition).optional(),
  traffic: z.array(traffic).optional(),
});
/** A Knative Service as the API gives it; what we do not know of it stays. */
export const knativeService = z.looseObject({
  metadata,
  spec: z.looseObject({ template: z.unknown(), traffic: z.array(traffic).optional() }),
  status: status.optional(),
});
export type KnativeService = z.output<typeof knativeService>;
const revision = z.looseObject({ metadata, status: status.optional() });
export type Revision = z.output<typeof revision>;

/** The calls that deploy makes. Each is tried again for half a minute while the API cannot be reached. */
export interface Cluster {
  namespace: string;
  readService(name: string): Promise<KnativeService | undefined>;
  /** Undefined when there is one already, which may be the work of an earlier try. */
  createService(body: object): Promise<KnativeService | undefined>;
  /** Undefined when somebody else wrote it since it was read. */
  replaceService(name: string, body: object): Promise<KnativeService | undefined>;
  readRevision(name: string): Promise<Revision | undefined>;
  listRevisions(service: string): Promise<Revision[]>;
  deleteRevision(name: string): Promise<void>;
  /** Why the containers of a revision do not run; undefined when the pods say nothing of it. */
  podTrouble(revision: string): Promise<string | undefined>;
}

/**
 * Opens the Kubernetes API: of the pod we run in, else of KUBECONFIG.
 *
 * @throws DandelionError `bad-config` when there is neither
 */
export async function openCluster(settings: { KUBE_NAMESPACE?: string }): Promise<Cluster> {
  const { CoreV1Api, CustomObjectsApi, KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  try {
    config.loadFromDefault();
  } catch (cause) {
    throw new DandelionError('bad-config', `The kubeconfig cannot be read: ${messageOf(cause)}.`, { cause });
  }
  const objects = config.makeApiClient(CustomObjectsApi);
  const core = config.makeApiClient(CoreV1Api);
  const inPod = await readFile(NAMESPACE_FILE, 'utf8').catch(() => undefined);
  const context = config.getContextObject(config.currentContext)?.namespace;
  const namespace = settings.KUBE_NAMESPACE ?? inPod?.trim() ?? context ?? 'default';
  const services = { ...API, namespace, plural: 'services' };
  const revisions = { ...API, namespace, plural: 'revisions' };

  return {
    namespace,
    readService: async (name) => {
      const found = await call('get', `services/${name}`, namespace, () =>
        objects.getNamespacedCustomObject({ ...services, name }),
      );
      return found === undefined ? undefined : knativeService.parse(found);
    },
    createService: async (body) => {
      const made = await call('create', 'services', namespace, () =>
        objects.createNamespacedCustomObject({ ...services, body }),
      );
      return made === undefined ? undefined : knativeService.parse(made);
    },
    replaceService: async (name, body) => {
      const written = await call('update', `services/${name}`, namespace, () =>
        objects.replaceNamespacedCustomObject({ ...services, name, body }),
      );
      return written === undefined ? undefined : knativeService.parse(written);
    },
    readRevision: async (name) => {
      const found = await call('get', `revisions/${name}`, namespace, () =>
        objects.getNamespacedCustomObject({ ...revisions, name }),
      );
      return found === undefined ? undefined : revision.parse(found);
    },
    listRevisions: async (service) => {
      const labelSelector = `serving.knative.dev/service=${service}`;
      const found = await call('list', 'revisions', namespace, () =>
        objects.listNamespacedCustomObject({ ...revisions, labelSelector }),
      );
      if (found === undefined) {
        throw new DandelionError(
          'cluster-refused',
          `The cluster has no revisions of ${API.group}/${API.version}: install Knative Serving.`,
        );
      }
      return z.object({ items: z.array(revision) }).parse(found).items;
    },
    deleteRevision: async (name) => {
      await call('delete', `revisions/${name}`, namespace, () =>
        objects.deleteNamespacedCustomObject({ ...revisions, name }),
      );
    },
    podTrouble: async (name) => {
      const labelSelector = `serving.knative.dev/revision=${name}`;
      const pods = await call('list', 'pods', namespace, () =>
        core.listNamespacedPod({ namespace, labelSelector }),
      );
      const states = (pods?.items ?? []).flatMap(({ status: pod }) => pod?.containerStatuses ?? []);
      for (const { name: container, state, lastState, restartCount } of states) {
        const ended = state?.terminated ?? lastState?.terminated;
        if (ended !== undefined && ended.exitCode !== 0) {
          const why = ended.message?.trim() || ended.reason || 'Error';
          return `container ${container} ended with ${ended.exitCode} (${restartCount} restarts): ${why}`;
        }
        const waits = state?.waiting;
        if (waits?.reason !== undefined && waits.reason !== 'ContainerCreating') {
          return `container ${container} waits: ${waits.reason}${waits.message ? ` (${waits.message})` : ''}`;
        }
      }
      return undefined;
    },
  };
}

/**
 * Makes one call. Not found is undefined, and so is a conflict: both are answers.
 *
 * @throws DandelionError `cluster-unavailable`, or `cluster-refused` naming what to mend
 */
async function call<Result>(
  verb: string,
  resource: string,
  namespace: string,
  send: () => Promise<Result>,
): Promise<Result | undefined> {
  for (const waitMs of [...BACK_OFF_MS, undefined]) {
    try {
      return await withinTime(send());
    } catch (error) {
      const code = statusOf(error);
      if (code === 404 || code === 409) return undefined;
      if (code !== undefined && code < 500 && code !== 429) throw refused(verb, resource, namespace, error);
      if (waitMs === undefined) throw unavailable(error);
      await pause(waitMs);
    }
  }
  throw unavailable(undefined);
}

async function withinTime<Result>(sent: Promise<Result>): Promise<Result> {
  const timer = new AbortController();
  const late = pause(CALL_TIMEOUT_MS, timer.signal).then(() => {
    throw new Error(`no answer within ${CALL_TIMEOUT_MS} ms`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([sent, late]);
  } finally {
    timer.abort();
  }
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : undefined;
}

function unavailable(cause: unknown): DandelionError {
  const sentence = `The Kubernetes API does not answer (${messageOf(cause)}); the deployment goes on from here when it does.`;
  return new DandelionError('cluster-unavailable', sentence, { cause, retryAfterMs: 10_000 });
}

function refused(verb: string, resource: string, namespace: string, cause: unknown): DandelionError {
  const code = statusOf(cause);
  const why = messageOf(cause);
  if (code === 401 || code === 403) {
    return new DandelionError(
      'cluster-refused',
      `The ServiceAccount of deploy may not ${verb} ${resource} in namespace ${namespace}: ${why}. Add it to the Role dandelion-deploy and its RoleBinding.`,
      { cause },
    );
  }
  return new DandelionError('cluster-refused', `Kubernetes refused to ${verb} ${resource}: ${why}`, {
    cause,
  });
}

/** The API's own sentence, where the answer has one. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return 'no reason given';
  const body = 'body' in error ? error.body : undefined;
  try {
    const parsed: unknown = typeof body === 'string' ? JSON.parse(body) : body;
    return z.object({ message: z.string() }).parse(parsed).message;
  } catch {
    const cause = error.cause instanceof Error ? `: ${error.cause.message}` : '';
    return (error.message.split('\n')[0] ?? '') + cause;
  }
}
