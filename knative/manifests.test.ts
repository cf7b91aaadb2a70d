import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { Ajv } from 'ajv';
import { describe, expect, it, test } from 'vitest';
import { parseAllDocuments } from 'yaml';

// biome-ignore lint/suspicious/noExplicitAny: manifests are checked against their schemas here.
type Resource = any;

const { schemas } = JSON.parse(await readFile(join(import.meta.dirname, 'schemas/knative.json'), 'utf8')) as {
  schemas: Record<string, object>;
};
const ajv = new Ajv({ allErrors: true, strict: false });
const kustomize = spawnSync('kubectl', ['kustomize', '--help'], { stdio: 'ignore' }).status === 0;
if (!kustomize)
  console.warn('SKIPPED: overlays are not rendered: kubectl (with kustomize) is not on the PATH.');

async function readResources(path: string): Promise<Resource[]> {
  return parseAllDocuments(await readFile(join(import.meta.dirname, path), 'utf8')).map((document) =>
    document.toJS(),
  );
}

async function readFolder(folder: string): Promise<Resource[]> {
  const files = await readdir(join(import.meta.dirname, folder));
  return (await Promise.all(files.map((file) => readResources(join(folder, file))))).flat();
}

function faultsOf(resource: Resource): string[] {
  const schema = schemas[`${resource.apiVersion}/${resource.kind}`];
  if (schema === undefined) return [];
  if (ajv.validate(schema, resource)) return [];
  return (ajv.errors ?? []).map(
    (fault) =>
      `${resource.kind} ${resource.metadata.name}${fault.instancePath}: ${fault.message} ${JSON.stringify(fault.params)}`,
  );
}

function render(overlay: string): Resource[] {
  const { stdout, stderr, status } = spawnSync('kubectl', ['kustomize', join(import.meta.dirname, overlay)], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return parseAllDocuments(stdout).map((document) => document.toJS());
}

/** True when a PodMonitor takes the pods of a function's Service. */
function selects({ spec }: Resource, service: string): boolean {
  const labels: Record<string, string> = {
    'app.kubernetes.io/part-of': 'dandelion',
    'serving.knative.dev/service': service,
  };
  const { matchLabels = {}, matchExpressions = [] } = spec.selector;
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }: Resource) => {
      if (operator === 'Exists') return key in labels;
      if (operator === 'In') return values.includes(labels[key]);
      if (operator === 'NotIn') return !values.includes(labels[key]);
      throw new Error(`The operator ${operator} is not understood here.`);
    })
  );
}

const services = await readFolder('base/services');
const eventing = await readFolder('base/eventing');
const jobs = await readFolder('base/jobs');
const [predict] = await readResources('base/predict/service.yaml');

describe('manifests', () => {
  it('fit the schemas of Knative', () => {
    expect([...services, ...eventing, ...jobs, predict].flatMap(faultsOf)).toEqual([]);
  });

  it('would be refused with a field that Knative does not know', () => {
    const wrong = structuredClone(predict);
    wrong.spec.template.spec.containerConcurency = 1;
    expect(faultsOf(wrong)).toEqual([expect.stringContaining('containerConcurency')]);
  });

  it('have a Service for every function, and no other; that of predict is a template for deploy', async () => {
    const folders = await readdir(join(import.meta.dirname, '../functions'), { withFileTypes: true });
    const functions = folders.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    const named = [...services, predict].map(({ metadata }) => metadata.name);
    expect(named.sort()).toEqual(functions.sort());
    expect(services.map(({ metadata }) => metadata.name)).not.toContain('predict');
  });

  it('give predict and feedback one key, so that a client has one hash with both', () => {
    const keyOf = (name: string) =>
      [...services, predict]
        .find(({ metadata }) => metadata.name === name)
        .spec.template.spec.containers[0].env.find((each: Resource) => each.name === 'PREDICTION_LOG_SALT');
    expect(keyOf('predict')).toMatchObject({ valueFrom: { secretKeyRef: { optional: true } } });
    expect(keyOf('predict')).toEqual(keyOf('feedback'));
  });

  it('give deploy the rights that its calls need, and no other', async () => {
    const role = (await readResources('base/config/accounts.yaml')).find(({ kind }) => kind === 'Role');
    const rights = role.rules.flatMap(({ resources, verbs }: Resource) =>
      resources.flatMap((resource: string) => verbs.map((verb: string) => `${verb} ${resource}`)),
    );
    const source = await readFile(join(import.meta.dirname, '../functions/deploy/kubernetes.ts'), 'utf8');
    const calls = [...source.matchAll(/call\('(\w+)', ['`](\w+)/g)].map(
      ([, verb, resource]) => `${verb} ${resource}`,
    );
    expect(calls).toContain('update services');
    expect(rights.sort()).toEqual([...new Set(calls)].sort());
  });

  it('send events to Services that exist', () => {
    const triggers = eventing.filter(({ kind }) => kind === 'Trigger');
    expect(triggers.length).toBeGreaterThan(4);
    const named = [...services, ...jobs].map(({ kind, metadata }) => `${kind} ${metadata.name}`);
    for (const { spec } of triggers) {
      expect(named).toContain(`${spec.subscriber.ref.kind} ${spec.subscriber.ref.name}`);
    }
  });

  it('run long work as Jobs of the same image, that end, are repeated and go away', () => {
    expect(jobs).not.toEqual([]);
    for (const { metadata, spec } of jobs) {
      const job = spec.job.spec;
      const pod = job.template.spec;
      const [container] = pod.containers;
      const service = services.find((each) => each.metadata.name === metadata.name);
      const [ofService] = service.spec.template.spec.containers;
      expect(container.image).toBe(ofService.image);
      expect(container.securityContext).toEqual(ofService.securityContext);
      const own = ['JOB_TRIES'];
      expect(container.env.filter(({ name }: { name: string }) => !own.includes(name))).toEqual(
        ofService.env,
      );
      expect(pod).toMatchObject({ restartPolicy: 'Never', enableServiceLinks: false });
      expect(job).toMatchObject({
        ttlSecondsAfterFinished: expect.any(Number),
        activeDeadlineSeconds: expect.any(Number),
      });
      const tries = container.env.find(({ name }: { name: string }) => name === 'JOB_TRIES').value;
      expect(Number(tries)).toBe(job.backoffLimit + 1);
    }
  });

  test.each([...services, predict].map((service) => [service.metadata.name, service]))(
    '%s runs with least rights and explicit limits',
    (name, service) => {
      const { template } = service.spec;
      const [container] = template.spec.containers;
      expect(container.securityContext).toMatchObject({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        runAsNonRoot: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      });
      expect(template.spec).toMatchObject({ enableServiceLinks: false, containerConcurrency: 0 });
      expect(template.spec.serviceAccountName).toBe(name === 'deploy' ? 'dandelion-deploy' : 'dandelion');
      expect(template.metadata.annotations).toHaveProperty(['autoscaling.knative.dev/max-scale']);
      expect(container.resources).toMatchObject({
        requests: { cpu: expect.anything() },
        limits: { memory: expect.anything() },
      });
      const open = ['predict', 'feedback', 'webapp'].includes(name as string);
      const visibility = service.metadata.labels['networking.knative.dev/visibility'];
      expect(visibility).toBe(open ? undefined : 'cluster-local');
    },
  );
});

describe.skipIf(!kustomize)('overlays', () => {
  it.each(['overlays/kind', 'overlays/production'])('%s renders to what fits the schemas', (overlay) => {
    expect(render(overlay).flatMap(faultsOf)).toEqual([]);
  });

  it('have no password in production, and no image of development', () => {
    const resources = render('overlays/production');
    expect(resources.filter(({ kind }) => kind === 'Secret')).toEqual([]);
    expect(JSON.stringify(resources)).not.toContain('dev.local/');
  });

  it('have each function scraped once with the component for Prometheus, with its token where it has one', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'dandelion-overlay-'));
    try {
      const here = (folder: string) => relative(scratch, join(import.meta.dirname, folder));
      const overlay = { resources: [here('base')], components: [here('monitoring')], namespace: 'dandelion' };
      await writeFile(join(scratch, 'kustomization.yaml'), JSON.stringify(overlay));
      const resources = render(relative(import.meta.dirname, scratch));
      const monitors = resources.filter(({ kind }) => kind === 'PodMonitor');
      for (const { metadata, spec } of [...services, predict]) {
        const token = spec.template.spec.containers[0].env?.find(
          ({ name }: Resource) => name === 'DANDELION_TOKEN',
        );
        const { name, key } = token?.valueFrom.secretKeyRef ?? {};
        const scraping = monitors.filter((monitor) => selects(monitor, metadata.name));
        expect(
          scraping.flatMap((monitor) =>
            monitor.spec.podMetricsEndpoints.map((each: Resource) => each.authorization),
          ),
          metadata.name,
        ).toEqual([token === undefined ? undefined : { type: 'Bearer', credentials: { name, key } }]);
      }
    } finally {
      await rm(scratch, { recursive: true });
    }
  });

  it('leave the template of predict one that deploy can fill in', () => {
    const template = render('overlays/production').find(
      ({ metadata }) => metadata.name === 'predict-template',
    );
    expect(template.data['service.yaml']).toMatch(/value: \$\{MODEL_VERSION\}/);
  });
});
