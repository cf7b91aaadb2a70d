/** `npm run cluster` and `npm run cluster:down`: a Knative with everything in it, step by step, as often as one likes. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../errors.ts';
import { installEventing, installServing, type Kubectl, kubectlOf, troubleIn } from './cluster/knative.ts';
import { chooseProvider, type Provider } from './cluster/providers.ts';

const root = join(import.meta.dirname, '../..');
const NAMESPACE = 'dandelion';
const DEVELOPMENT_PREFIX = 'dev.local/dandelion-';
const usage = `npm run cluster            a cluster with Knative, development stores and the functions; repeat it at will
npm run cluster:down       the end of it

  --context NAME     kind, minikube, or current: the one kubectl uses (default: kind, else minikube)
  --overlay FOLDER   what is applied (default knative/overlays/kind)
  --images PREFIX    published images, as ghcr.io/dandelion-mlops/dandelion- (default: built here and loaded)
  --tag TAG          of them (default: the version in package.json)`;

const options = {
  context: { type: 'string' },
  overlay: { type: 'string', default: 'knative/overlays/kind' },
  images: { type: 'string' },
  tag: { type: 'string' },
  down: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;
type Options = ReturnType<typeof readOptions>;

const builtImages = z.array(z.object({ image: z.string(), archive: z.string() }));

interface Step {
  title: string;
  /** Resolves with a few words on what was done. */
  act(): Promise<string>;
  /** What to do when it fails. */
  cure: string;
}

function readOptions(words: string[]) {
  return parseArgs({ args: words, options }).values;
}

function stepsUp(provider: Provider, kubectl: Kubectl, given: Options): Step[] {
  const isOurs = provider.name !== 'current';
  return [
    {
      title: `cluster (${provider.name})`,
      act: () => provider.create(),
      cure: isOurs ? 'npm run cluster:down, then again.' : 'see that kubectl version answers.',
    },
    {
      title: 'Knative Serving',
      act: () => installServing(kubectl, isOurs),
      cure: 'github.com and gcr.io must be reachable; kubectl --namespace knative-serving get pods says more.',
    },
    {
      title: 'Knative Eventing',
      act: () => installEventing(kubectl),
      cure: 'github.com and gcr.io must be reachable; kubectl --namespace knative-eventing get pods says more.',
    },
    {
      title: 'images',
      act: () => bringImages(provider, given),
      cure: 'npm run images -- --archive must succeed; or name published ones by --images.',
    },
    {
      title: 'manifests',
      act: () => applyOverlay(kubectl, given),
      cure: `kubectl apply --kustomize ${given.overlay} says more.`,
    },
    {
      title: 'stores',
      act: () => waitFor(kubectl, 'deployments', 'Available', given),
      cure: `kubectl --namespace ${NAMESPACE} describe pods says why; their images come from public registries.`,
    },
    {
      title: 'broker and triggers',
      act: async () => {
        await waitFor(kubectl, 'brokers.eventing.knative.dev', 'Ready', given);
        return waitFor(kubectl, 'triggers.eventing.knative.dev', 'Ready', given);
      },
      cure: `kubectl --namespace ${NAMESPACE} get brokers,triggers says why.`,
    },
    {
      title: 'functions',
      act: () => waitFor(kubectl, 'services.serving.knative.dev', 'Ready', given),
      cure: `kubectl --namespace ${NAMESPACE} get ksvc,pods says why; images must be on the nodes or in a registry.`,
    },
  ];
}

async function bringImages({ name, load }: Provider, { images }: Options): Promise<string> {
  if (images !== undefined) return `${images}… are the registry's`;
  if (load === undefined) return `expected on the nodes of ${name} as ${DEVELOPMENT_PREFIX}…:dev`;
  // A name in dev.local and a tag other than "latest": nobody asks a registry for its digest, nobody pulls it.
  const words = [join(root, 'shared/cli/images.ts'), '--archive', '--json', '--prefix', DEVELOPMENT_PREFIX];
  const text = execFileSync(process.execPath, words, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 16 * 1024 * 1024,
  });
  const built = builtImages.parse(JSON.parse(text)).filter(({ image }) => !image.includes('-gateway:'));
  for (const { archive } of built) await load(archive);
  return `${built.length} built and loaded`;
}

async function applyOverlay(kubectl: Kubectl, given: Options): Promise<string> {
  const rendered = await kubectl(['kustomize', join(root, given.overlay)]);
  const manifests = given.images === undefined ? rendered : withImages(rendered, given.images, tagOf(given));
  // Triggers and Services are admitted once the webhooks of their kinds answer, which may be a moment after they are up.
  await retried(() => kubectl(['apply', '--filename', '-'], manifests));
  return given.overlay;
}

function tagOf({ tag }: Options): string {
  return tag ?? process.env.npm_package_version ?? 'latest';
}

/** The manifests with other images than those that are built here; in predict's template, too, which is text. */
export function withImages(manifests: string, prefix: string, tag: string): string {
  return manifests.replace(/dev\.local\/dandelion-([a-z]+):dev\b/g, `${prefix}$1:${tag}`);
}

async function retried(act: () => Promise<string>): Promise<string> {
  for (let tries = 1; ; tries++) {
    try {
      return await act();
    } catch (error) {
      const isEarly = /webhook|no matches for kind/.test(toDandelionError(error).message);
      if (!isEarly || tries >= 12) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5000));
    }
  }
}

async function waitFor(kubectl: Kubectl, kind: string, condition: string, given: Options): Promise<string> {
  const there = await kubectl(['get', kind, '--namespace', NAMESPACE, '--output', 'name']);
  const count = there.split('\n').filter((line) => line !== '').length;
  if (count === 0) return `${given.overlay} has none`;
  await kubectl([
    ...['wait', kind, '--all', '--namespace', NAMESPACE],
    ...['--for', `condition=${condition}`, '--timeout', '10m'],
  ]);
  return `${count} ready`;
}

async function up(given: Options): Promise<void> {
  const provider = chooseProvider(given.context);
  const kubectl = kubectlOf(provider.context);
  const steps = stepsUp(provider, kubectl, given);
  for (const [index, step] of steps.entries()) {
    const startedAt = performance.now();
    process.stdout.write(`[${index + 1}/${steps.length}] ${step.title.padEnd(20)} `);
    try {
      const done = await step.act();
      process.stdout.write(`${done} (${Math.round((performance.now() - startedAt) / 1000)} s)\n`);
    } catch (error) {
      process.stdout.write('failed\n');
      const trouble = await troubleIn(kubectl, NAMESPACE);
      const { code, message } = toDandelionError(error);
      const lines = [message, trouble, `What helps: ${step.cure}`].filter((line) => line !== '');
      throw new DandelionError(code, lines.join('\n'));
    }
  }
  const reach = provider.reach === undefined ? '' : `\nReach it     ${provider.reach}`;
  console.log(`${reach}
The page     http://webapp.${NAMESPACE}.localhost:8080
First model  KUBECONFIG=${process.env.KUBECONFIG ?? '~/.kube/config'} INGRESS_URL=http://127.0.0.1:8080 npm run test:e2e -- chain
Look         kubectl --namespace ${NAMESPACE} get ksvc,triggers,pods
End          npm run cluster:down${provider.remove === undefined ? ' -- --context current' : ''}`);
}

async function down(given: Options): Promise<void> {
  const provider = chooseProvider(given.context);
  if (provider.remove !== undefined) {
    await provider.remove();
    console.log(`The cluster of ${provider.name} is gone.`);
    return;
  }
  const kubectl = kubectlOf(provider.context);
  await removeNamespace(kubectl);
  console.log(`The namespace ${NAMESPACE} is gone; Knative and the cluster stay.`);
}

/**
 * Knative gives a pod as long to end as a request may take, ten minutes. Whatever the pods then take of it: where one is left
 * when Kubernetes' namespace controller looks, it looks again after half of that time, or when the namespace changes. Seen:
 * all was gone after 30 s, and the namespace after four minutes. Here broker and stores go too, so nothing is worth the wait.
 */
async function removeNamespace(kubectl: Kubectl): Promise<void> {
  // First: in a namespace that ends nobody makes new pods for those that are taken away.
  await kubectl(['delete', 'namespace', NAMESPACE, '--ignore-not-found', '--wait=false']);
  await kubectl([
    ...['delete', 'pods', '--all', '--namespace', NAMESPACE],
    ...['--grace-period', '1', '--ignore-not-found', '--timeout', '2m'],
  ]).catch(ignored);
  await kubectl(['annotate', 'namespace', NAMESPACE, 'dandelion.dev/pods=gone', '--overwrite']).catch(
    ignored,
  );
  try {
    await kubectl(['wait', '--for', 'delete', `namespace/${NAMESPACE}`, '--timeout', '5m']);
  } catch (error) {
    const { code, message } = toDandelionError(error);
    const cure = `kubectl get namespace ${NAMESPACE} --output yaml says under status what is left, and who should remove it.`;
    throw new DandelionError(code, `${message}\nWhat helps: ${cure}`);
  }
}

/** Gone already, or what the wait for the namespace tells better. */
const ignored = (): undefined => undefined;

async function main(): Promise<void> {
  const given = readOptions(process.argv.slice(2));
  if (given.help) console.log(usage);
  else if (given.down) await down(given);
  else await up(given);
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    const told = error instanceof DandelionError || (error instanceof TypeError && 'code' in error);
    process.stderr.write(`${told ? error.message : String((error as Error).stack)}\n`);
    process.exitCode = told ? 2 : 1;
  });
}
