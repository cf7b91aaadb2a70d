import { must } from './commands.ts';

/** Runs kubectl in the chosen context. */
export type Kubectl = (words: readonly string[], input?: string) => Promise<string>;

/** kubectl for one context; the current one when it is undefined. */
export function kubectlOf(context: string | undefined): Kubectl {
  const where = context === undefined ? [] : ['--context', context];
  return (words, input) => must(['kubectl', ...where, ...words], input);
}

/** What the manifests were proved on; a cluster that has Knative keeps its own. */
const release = {
  serving: 'https://github.com/knative/serving/releases/download/knative-v1.15.2',
  eventing: 'https://github.com/knative/eventing/releases/download/knative-v1.15.3',
  kourier: 'https://github.com/knative-extensions/net-kourier/releases/download/knative-v1.15.1',
} as const;

const WAIT = '10m';

/** Installs Knative Serving with Kourier, unless some Serving is there. */
export async function installServing(kubectl: Kubectl, isOurs: boolean): Promise<string> {
  if (await has(kubectl, 'services.serving.knative.dev')) {
    await waitForDeployments(kubectl, 'knative-serving');
    return 'there already, left alone';
  }
  await applyDefinitions(kubectl, `${release.serving}/serving-crds.yaml`);
  await kubectl(['apply', '--filename', `${release.serving}/serving-core.yaml`]);
  await kubectl(['apply', '--filename', `${release.kourier}/kourier.yaml`]);
  await patch(kubectl, 'config-network', { 'ingress-class': 'kourier.ingress.networking.knative.dev' });
  // Names below "localhost" lead to this machine without any DNS.
  if (isOurs) {
    await patch(kubectl, 'config-domain', { localhost: '' });
    await openIngress(kubectl);
  }
  await waitForDeployments(kubectl, 'knative-serving');
  await waitForDeployments(kubectl, 'kourier-system');
  return 'installed, with Kourier';
}

/** Installs Knative Eventing with the in-memory broker, unless some Eventing is there. */
export async function installEventing(kubectl: Kubectl): Promise<string> {
  if (await has(kubectl, 'brokers.eventing.knative.dev')) {
    await waitForDeployments(kubectl, 'knative-eventing');
    const lacks = (await has(kubectl, 'jobsinks.sinks.knative.dev'))
      ? ''
      : '; it has no JobSink (from 1.15 on)';
    return `there already, left alone${lacks}`;
  }
  await applyDefinitions(kubectl, `${release.eventing}/eventing-crds.yaml`);
  for (const part of ['eventing-core', 'in-memory-channel', 'mt-channel-broker']) {
    await kubectl(['apply', '--filename', `${release.eventing}/${part}.yaml`]);
  }
  await waitForDeployments(kubectl, 'knative-eventing');
  return 'installed, with the in-memory broker';
}

async function has(kubectl: Kubectl, definition: string): Promise<boolean> {
  const found = await kubectl([
    ...['get', 'customresourcedefinitions', definition],
    ...['--ignore-not-found', '--output', 'name'],
  ]);
  return found.trim() !== '';
}

/** Resources of a kind are refused until its definition is established. */
async function applyDefinitions(kubectl: Kubectl, url: string): Promise<void> {
  await kubectl(['apply', '--filename', url]);
  await kubectl(['wait', '--for', 'condition=Established', '--timeout', '2m', '--filename', url]);
}

function patch(kubectl: Kubectl, configMap: string, data: Record<string, string>): Promise<string> {
  const words = ['patch', 'configmap', configMap, '--namespace', 'knative-serving', '--type', 'merge'];
  return kubectl([...words, '--patch', JSON.stringify({ data })]);
}

/** The port of the node that knative/kind.yaml maps to this machine. */
function openIngress(kubectl: Kubectl): Promise<string> {
  const ports = [{ name: 'http2', port: 80, targetPort: 8080, nodePort: 31080, protocol: 'TCP' }];
  const words = ['patch', 'service', 'kourier', '--namespace', 'kourier-system', '--type', 'merge'];
  return kubectl([...words, '--patch', JSON.stringify({ spec: { type: 'NodePort', ports } })]);
}

function waitForDeployments(kubectl: Kubectl, namespace: string): Promise<string> {
  return kubectl([
    ...['wait', 'deployments', '--all', '--namespace', namespace],
    ...['--for', 'condition=Available', '--timeout', WAIT],
  ]);
}

/** What is not ready, for a message: a line each. */
export async function troubleIn(kubectl: Kubectl, namespace: string): Promise<string> {
  const pods = ['get', 'pods', '--namespace', namespace, '--no-headers', '--output'];
  const columns =
    'custom-columns=NAME:.metadata.name,PHASE:.status.phase,WHY:.status.containerStatuses[*].state.waiting.reason';
  const text = await kubectl([...pods, columns]).catch(() => '');
  return text
    .split('\n')
    .filter((line) => line !== '' && !/\s(Running|Succeeded)\s+<none>$/.test(line))
    .join('\n');
}
