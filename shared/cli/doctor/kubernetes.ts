import { DandelionError } from '../../errors.ts';
import { type Check, notConfigured, timed } from './check.ts';
import { clockAhead } from './http.ts';

/** API groups of Knative, which the API server has once their resource definitions are installed. */
const knative = { 'serving.knative.dev': 'Knative Serving', 'eventing.knative.dev': 'Knative Eventing' };

export const kubernetes: Check = {
  name: 'Kubernetes',
  variable: 'KUBECONFIG',
  async look({ KUBECONFIG: file }) {
    if (file === undefined) return notConfigured('KUBECONFIG names a cluster');
    const { ApisApi, KubeConfig, VersionApi } = await import('@kubernetes/client-node');
    const config = new KubeConfig();
    try {
      config.loadFromDefault();
    } catch (cause) {
      throw new DandelionError('bad-config', `${file} of KUBECONFIG cannot be read: ${messageOf(cause)}.`, {
        cause,
      });
    }
    const server = config.getCurrentCluster()?.server;
    if (server === undefined) {
      throw new DandelionError('bad-config', `${file} of KUBECONFIG has no current context: set one.`);
    }
    try {
      const sentMs = Date.now();
      const { answer, latencyMs } = await timed(() => config.makeApiClient(VersionApi).getCodeWithHttpInfo());
      const clock = clockAhead(answer.headers.date, sentMs);
      const { groups } = await config.makeApiClient(ApisApi).getAPIVersions();
      const missing = Object.entries(knative).filter(([group]) => !groups.some(({ name }) => name === group));
      if (missing.length > 0) {
        const what = missing.map(([, name]) => name).join(' and ');
        throw new DandelionError(
          'bad-config',
          `The cluster at ${server} lacks ${what}: install it (knative.dev).`,
        );
      }
      return {
        status: 'ok',
        version: answer.data.gitVersion,
        latencyMs,
        detail: `${server}, with Knative Serving and Eventing`,
        ...clock,
      };
    } catch (error) {
      throw explain(error, server);
    }
  },
};

function explain(error: unknown, server: string): DandelionError {
  if (error instanceof DandelionError) return error;
  const status = error instanceof Error && 'code' in error ? error.code : undefined;
  if (status === 401 || status === 403) {
    const cure = 'renew the credentials of KUBECONFIG';
    return new DandelionError('store-forbidden', `Kubernetes at ${server} refuses us (${status}): ${cure}.`);
  }
  return new DandelionError(
    'cluster-unavailable',
    `Kubernetes at ${server} cannot be used (${messageOf(error)}): see that it runs, and check KUBECONFIG.`,
    { cause: error },
  );
}

function messageOf(error: unknown): string {
  const text =
    error instanceof Error ? error.message || String('code' in error && error.code) : String(error);
  return text.split('\n')[0] ?? text;
}
