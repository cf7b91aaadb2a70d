import { join } from 'node:path';
import { DandelionError } from '../../errors.ts';
import { isThere, must, run } from './commands.ts';

/** Where a cluster comes from. */
export interface Provider {
  name: 'kind' | 'minikube' | 'current';
  /** Context in the kubeconfig; undefined: the current one. */
  context: string | undefined;
  /** Programs that it needs, with where to get them. */
  needs: { program: string; words: string[]; cure: string }[];
  /** Makes the cluster unless it is there, and says which. */
  create(): Promise<string>;
  /** Brings an archive of `npm run images` onto the nodes; undefined: they get their images elsewhere. */
  load?: (archive: string) => Promise<void>;
  /** Ends the cluster; undefined: it is not ours to end. */
  remove?: () => Promise<void>;
  /** Brings the ingress to port 8080 of this machine; undefined: it is there. */
  reach?: string;
}

const CLUSTER = 'dandelion';
const kindConfig = join(import.meta.dirname, '../../../knative/kind.yaml');
const kubectl = {
  program: 'kubectl',
  words: ['version', '--client'],
  cure: 'install kubectl: https://kubernetes.io/docs/tasks/tools',
};
const docker = {
  program: 'docker',
  words: ['info'],
  cure: 'start Docker (docker info must answer): https://docs.docker.com/get-started/get-docker',
};

const providers: Record<Provider['name'], Provider> = {
  kind: {
    name: 'kind',
    context: `kind-${CLUSTER}`,
    needs: [
      kubectl,
      docker,
      {
        program: 'kind',
        words: ['version'],
        cure: 'install kind: https://kind.sigs.k8s.io/docs/user/quick-start',
      },
    ],
    async create() {
      const present = (await must(['kind', 'get', 'clusters'])).split('\n').includes(CLUSTER);
      if (present) return 'there already';
      await must(['kind', 'create', 'cluster', '--name', CLUSTER, '--config', kindConfig, '--wait', '5m']);
      return 'made';
    },
    load: async (archive) => void (await must(['kind', 'load', 'image-archive', archive, '--name', CLUSTER])),
    remove: async () => void (await must(['kind', 'delete', 'cluster', '--name', CLUSTER])),
  },
  minikube: {
    name: 'minikube',
    context: CLUSTER,
    needs: [
      kubectl,
      {
        program: 'minikube',
        words: ['version'],
        cure: 'install Minikube: https://minikube.sigs.k8s.io/docs/start',
      },
    ],
    async create() {
      const status = await run(['minikube', 'status', '--profile', CLUSTER]);
      if (status.status === 0) return 'there already';
      await must(['minikube', 'start', '--profile', CLUSTER, '--cpus', '4', '--memory', '8g']);
      return 'started';
    },
    load: async (archive) => void (await must(['minikube', 'image', 'load', archive, '--profile', CLUSTER])),
    remove: async () => void (await must(['minikube', 'delete', '--profile', CLUSTER])),
    reach: `kubectl --context ${CLUSTER} --namespace kourier-system port-forward service/kourier 8080:80`,
  },
  current: {
    name: 'current',
    context: undefined,
    needs: [kubectl],
    async create() {
      const context = (await must(['kubectl', 'config', 'current-context'])).trim();
      await must(['kubectl', 'version', '--request-timeout', '10s']);
      return `context ${context}`;
    },
    reach:
      'kubectl --namespace kourier-system port-forward service/kourier 8080:80   # where Kourier is the ingress',
  },
};

/**
 * The provider of that name, or the first that this machine has the programs for.
 *
 * @throws DandelionError `bad-config` naming what is missing and where to get it
 */
export function chooseProvider(wanted: string | undefined): Provider {
  if (wanted !== undefined) {
    const chosen = Object.values(providers).find(({ name }) => name === wanted);
    if (chosen === undefined) {
      throw new DandelionError(
        'bad-config',
        `--context ${wanted}: there are ${Object.keys(providers).join(', ')}.`,
      );
    }
    const missing = missingOf(chosen);
    if (missing.length === 0) return chosen;
    throw new DandelionError('bad-config', `${chosen.name} cannot be used here: ${missing.join('; ')}.`);
  }
  const found = [providers.kind, providers.minikube].find((each) => missingOf(each).length === 0);
  if (found !== undefined) return found;
  const lacks = [...missingOf(providers.kind), ...missingOf(providers.minikube).slice(-1)];
  throw new DandelionError(
    'bad-config',
    `There is neither kind nor Minikube to make a cluster with: ${[...new Set(lacks)].join('; ')}. A cluster that runs already: --context current.`,
  );
}

function missingOf({ needs }: Provider): string[] {
  return needs.filter(({ program, words }) => !isThere(program, ...words)).map(({ cure }) => cure);
}
