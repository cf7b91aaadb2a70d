import type { RequestOptions } from 'node:https';
import { request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { encodeBinary } from '../function/cloudevents.ts';

/** An answer of the Kubernetes API, or of a Service behind it. */
export interface ApiAnswer {
  status: number;
  text: string;
}

/** The API of the cluster that KUBECONFIG names, and what can be reached through it alone. */
export interface KubernetesApi {
  /** Namespace of the current context; undefined when it names none. */
  namespace: string | undefined;
  /**
   * What only reads is asked again while the API server does not answer.
   *
   * @throws DandelionError `upstream-unavailable`
   */
  call(
    method: string,
    path: string,
    options?: { headers?: Record<string, string>; body?: Uint8Array | string; timeoutMs?: number },
  ): Promise<ApiAnswer>;
}

const TIMEOUT_MS = 30_000;
const READ_TRIES = 5;
const RETRY_AFTER_MS = 1000;
/** Where a multi-tenant broker takes events: `/{namespace}/{broker}`. */
const BROKER_INGRESS = '/api/v1/namespaces/knative-eventing/services/http:broker-ingress:80/proxy';

const ACTIVATOR = '/api/v1/namespaces/knative-serving/services/http:activator-service:80/proxy';
const readyService = z.object({ status: z.object({ latestReadyRevisionName: z.string() }) });

/**
 * Opens the API of the current context.
 *
 * @throws DandelionError `bad-config` when there is no usable kubeconfig
 */
export async function openKubernetesApi(): Promise<KubernetesApi> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  try {
    config.loadFromDefault();
  } catch (cause) {
    throw new DandelionError('bad-config', 'The kubeconfig cannot be read: set KUBECONFIG.', { cause });
  }
  const server = config.getCurrentCluster()?.server;
  if (server === undefined) {
    throw new DandelionError('bad-config', 'The kubeconfig has no current context: set KUBECONFIG.');
  }
  return {
    namespace: config.getContextObject(config.currentContext)?.namespace,
    async call(method, path, { headers = {}, body, timeoutMs = TIMEOUT_MS } = {}) {
      const options: RequestOptions = { method, headers };
      await config.applyToHTTPSOptions(options);
      const url = `${server.replace(/\/$/, '')}${path}`;
      for (let left = method === 'GET' ? READ_TRIES : 1; ; left--) {
        try {
          return await send(url, { ...options, timeout: timeoutMs }, body);
        } catch (error) {
          if (left <= 1) throw error;
          await sleep(RETRY_AFTER_MS);
        }
      }
    },
  };
}

function send(url: string, options: RequestOptions, body?: Uint8Array | string): Promise<ApiAnswer> {
  return new Promise((resolve, reject) => {
    const unreachable = (cause: Error) =>
      reject(
        new DandelionError(
          'upstream-unavailable',
          `${new URL(url).origin} does not answer: ${cause.message}.`,
          {
            cause,
          },
        ),
      );
    const sent = request(url, options, (response) => {
      response.toArray().then((chunks) => {
        const text = Buffer.concat(chunks as Buffer[]).toString();
        resolve({ status: response.statusCode ?? 0, text });
      }, unreachable);
    });
    sent.once('timeout', () => sent.destroy(new Error(`nothing came for ${options.timeout} ms`)));
    sent.once('error', unreachable);
    sent.end(body);
  });
}

/**
 * Sends an event to a broker through the API server, so that nothing but a kubeconfig is needed.
 *
 * @throws DandelionError `upstream-unavailable` when the broker does not take it
 */
export async function sendToBroker(
  api: KubernetesApi,
  broker: { namespace: string; name: string },
  event: Event,
): Promise<void> {
  const { headers, body } = encodeBinary(event);
  const path = `${BROKER_INGRESS}/${broker.namespace}/${broker.name}`;
  const { status, text } = await api.call('POST', path, {
    headers,
    ...(body === undefined ? {} : { body }),
    timeoutMs: 120_000,
  });
  if (status >= 200 && status < 300) return;
  throw new DandelionError(
    'upstream-unavailable',
    `The broker ${broker.name} in namespace ${broker.namespace} answered ${status}: ${text.slice(0, 300)}`,
  );
}

/**
 * Asks a Service that only the cluster itself can reach, through the API server and Knative's activator, which wakes it
 * where it is at zero. Not for what is behind DANDELION_TOKEN: the API server takes the header for its own.
 *
 * @throws DandelionError `upstream-unavailable` when there is no such Service or it does not answer
 */
export async function askService(
  api: KubernetesApi,
  { namespace, name }: { namespace: string; name: string },
  { method = 'GET', path }: { method?: string; path: string },
): Promise<ApiAnswer> {
  const service = `/apis/serving.knative.dev/v1/namespaces/${namespace}/services/${name}`;
  const found = await api.call('GET', service);
  const revision = readyService.safeParse(found.status === 200 ? JSON.parse(found.text) : undefined);
  if (!revision.success) {
    const why = `the Service ${name} of namespace ${namespace} is not there or was never ready`;
    throw new DandelionError('upstream-unavailable', `${why}; name another one by --namespace.`);
  }
  return api.call(method, `${ACTIVATOR}${path}`, {
    headers: {
      'knative-serving-namespace': namespace,
      'knative-serving-revision': revision.data.status.latestReadyRevisionName,
    },
    timeoutMs: 120_000,
  });
}
