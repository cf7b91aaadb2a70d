import { applyService, deleteService, readServiceSpec, type TestCluster, until } from '../cluster.ts';
import type { Suite } from '../stage.ts';
import { type Row, row } from '../table.ts';
import { quickToZero, type Template, untilZero } from './cold-start.ts';

const NAME = 'e2e-outage';
const SAYS = /"message":"not ready yet: ([^"]+)/;

/** S3 is away when predict starts: it waits, not ready, says for what, and the request that woke it is answered. */
export async function storeOutage(suite: Suite): Promise<Row[]> {
  const { cluster, ingress, photo, say } = suite;
  const { template } = (await readServiceSpec(cluster, 'predict')) as { template: Template };
  const { annotations, labels } = template.metadata;
  const metadata = { labels, annotations: { ...annotations, ...quickToZero } };
  try {
    const host = await applyService(cluster, NAME, { template: { metadata, spec: template.spec } });
    await untilZero(suite, NAME);
    const bringBack = await cutStore(cluster);
    let asking: ReturnType<typeof ingress.post>;
    let said: string | undefined;
    try {
      asking = ingress.post(host, photo);
      await until(
        'predict says what it waits for',
        async () => {
          said = SAYS.exec(await logOf(cluster))?.[1];
          return said !== undefined;
        },
        { timeoutMs: 45_000 },
      );
    } finally {
      await bringBack();
    }
    say(`  ${said}`);
    const { status, latencyMs, text } = await asking;
    if (status !== 200) say(`  answered ${status}: ${text.slice(0, 200)}`);
    return [
      row(
        'S3 away at the first request after zero',
        `${status} after ${(latencyMs / 1000).toFixed(1)} s`,
        'waits, says why, answers 200',
        status === 200,
      ),
    ];
  } finally {
    await deleteService(cluster, NAME);
  }
}

/** Takes the pods from behind the store's Service. @returns what puts them back */
async function cutStore({ core, namespace }: TestCluster): Promise<() => Promise<void>> {
  const { data } = await core.readNamespacedConfigMap({ name: 'dandelion-settings', namespace });
  const name = new URL(data?.S3_ENDPOINT ?? '').hostname.split('.')[0] ?? '';
  const { spec } = await core.readNamespacedService({ name, namespace });
  const select = async (value: object) => {
    const body = [{ op: 'replace', path: '/spec/selector', value }];
    await core.patchNamespacedService({ name, namespace, body });
  };
  await select({ ...spec?.selector, 'dandelion.dev/e2e': 'away' });
  return () => select(spec?.selector ?? {});
}

async function logOf({ core, namespace, podsOf }: TestCluster): Promise<string> {
  const [pod] = await podsOf(NAME);
  if (pod?.metadata?.name === undefined) return '';
  const of = { name: pod.metadata.name, namespace, container: 'predict' };
  // Its container may not be there yet.
  return core.readNamespacedPodLog(of).catch(() => '');
}
