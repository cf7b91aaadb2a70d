import { readFile } from 'node:fs/promises';
import { request } from 'undici';
import { DandelionError } from '../../shared/errors.ts';
import { pause } from '../../shared/function/abort.ts';
import { revisionName } from '../../shared/stores/deployments.ts';
import type { DeploySettings } from './config.ts';
import type { Cluster, KnativeService, Revision } from './kubernetes.ts';
import type { Rollout, Route, Serving } from './rollout.ts';
import { renderService, VERSION_LABEL } from './template.ts';

const FENCE = 'dandelion.dev/deployment-fence';
const POLL_MS = 500;
/** How long a container may fail before it counts: a pod that is torn down late fails, too. */
const TROUBLE_AFTER_MS = 5000;
const ROUTE_TIMEOUT_MS = 60_000;

/** The rollout by revisions and traffic of the predict Service, of which it is the only writer. */
export function createKnativeRollout(cluster: Cluster, settings: DeploySettings): Rollout {
  const { PREDICT_SERVICE: name, REVISION_READY_TIMEOUT_MS: readyTimeoutMs } = settings;
  const readTemplate = () => readTemplateFile(settings.PREDICT_TEMPLATE);
  const versions = async () =>
    new Map((await cluster.listRevisions(name)).map((each) => [each.metadata.name, each]));

  /** Reads, changes and writes the Service; a newer deployment's mark ends this one. */
  const write = async (fence: string, change: (live: KnativeService) => object): Promise<void> => {
    for (let tries = 0; tries < 10; tries++) {
      const live = await cluster.readService(name);
      if (live === undefined) throw gone(name);
      const standing = live.metadata.annotations?.[FENCE];
      if (standing !== undefined && Number(standing) > Number(fence)) {
        throw new DandelionError('lease-lost', `A newer deployment writes the Service ${name} now.`);
      }
      const { status: _status, ...rest } = live;
      const annotations = { ...live.metadata.annotations, [FENCE]: fence };
      const body = { ...rest, ...change(live), metadata: { ...live.metadata, annotations } };
      if ((await cluster.replaceService(name, body)) !== undefined) return;
    }
    throw new DandelionError(
      'cluster-unavailable',
      `The Service ${name} is written by others all the time.`,
      { retryAfterMs: 5000 },
    );
  };

  /** Makes the Service unless there is one. */
  const create = async (
    fence: string,
    service: { metadata: KnativeService['metadata']; spec: object },
  ): Promise<boolean> => {
    if ((await cluster.readService(name)) !== undefined) return false;
    const annotations = { ...service.metadata.annotations, [FENCE]: fence };
    const metadata = { ...service.metadata, annotations };
    return (await cluster.createService({ ...service, metadata })) !== undefined;
  };

  return {
    canary: true,

    async serving() {
      const live = await cluster.readService(name);
      const targets = (live?.spec.traffic ?? []).filter(({ revisionName: of }) => of !== undefined);
      const main =
        targets.find(({ tag }) => tag === 'champion') ??
        targets.filter(({ tag, percent }) => tag !== 'candidate' && (percent ?? 0) > 0)[0];
      if (main?.revisionName === undefined) return undefined;
      return servingOf(await cluster.readRevision(main.revisionName));
    },

    async find(_model, version) {
      const ready = [...(await versions()).values()]
        .filter((each) => each.metadata.labels?.[VERSION_LABEL] === version && readyOf(each) === 'True')
        .sort((first, second) => ageOf(second) - ageOf(first));
      return ready[0]?.metadata.name;
    },

    async revisionOf(_model, version) {
      return revisionName(name, version, await readTemplate());
    },

    async prepare({ model, version, revision, serving, fence, waiting }) {
      const rendered = renderService(await readTemplate(), { service: name, model, version, revision });
      const template = {
        ...rendered.spec.template,
        metadata: { ...rendered.spec.template.metadata, name: revision },
      };
      const traffic = toTraffic(
        serving === undefined || serving.revision === revision
          ? [{ revision, version, share: 100, tag: 'candidate' }]
          : [
              { ...serving, share: 100, tag: 'champion' },
              { revision, version, share: 0, tag: 'candidate' },
            ],
      );
      const existing = await cluster.readRevision(revision);
      if (existing === undefined || readyOf(existing) !== 'True') {
        // A revision that failed keeps its name: it goes, so that this attempt gets a new one.
        if (existing !== undefined && readyOf(existing) === 'False') await cluster.deleteRevision(revision);
        const spec = { ...rendered.spec, template, traffic };
        const made = await create(fence, { ...rendered, spec });
        if (!made) await write(fence, () => ({ spec }));
        await untilReady(cluster, revision, readyTimeoutMs, waiting);
      }
      await write(fence, ({ spec }) => ({ spec: { ...spec, traffic } }));
      await untilRouted(cluster, name, traffic, waiting);
    },

    async route(routes, fence, waiting) {
      const traffic = toTraffic(routes);
      await write(fence, ({ spec }) => ({ spec: { ...spec, traffic } }));
      await untilRouted(cluster, name, traffic, waiting);
    },

    ask: (tag) => async (photo, traceparent, signal) => {
      const { url, host } = await addressOf(cluster, settings, tag);
      const headers = { 'content-type': 'image/jpeg', traceparent, ...(host === undefined ? {} : { host }) };
      const answer = await request(url, { method: 'POST', headers, body: photo, signal });
      return { status: answer.statusCode, text: await answer.body.text() };
    },

    async tidy(kept) {
      const old = [...(await versions()).values()]
        .filter((each) => !kept.includes(each.metadata.name))
        .sort((first, second) => ageOf(second) - ageOf(first))
        .slice(Math.max(0, settings.REVISIONS_KEPT - kept.length));
      for (const { metadata } of old) await cluster.deleteRevision(metadata.name);
      return old.map(({ metadata }) => metadata.name);
    },
  };
}

function toTraffic(routes: readonly Route[]) {
  return routes.map(({ revision, share, tag }) => ({
    ...{ revisionName: revision, percent: share, tag },
    latestRevision: false,
  }));
}

function servingOf(revision: Revision | undefined): Serving | undefined {
  const version = revision?.metadata.labels?.[VERSION_LABEL];
  return revision === undefined || version === undefined
    ? undefined
    : { revision: revision.metadata.name, version };
}

const ageOf = ({ metadata }: Revision) => Date.parse(metadata.creationTimestamp ?? '') || 0;
const readyOf = ({ status }: Revision) => status?.conditions?.find(({ type }) => type === 'Ready')?.status;

/** A revision is ready when its pod was; it fails with its own reason, or with that of its containers. */
async function untilReady(
  cluster: Cluster,
  revision: string,
  timeoutMs: number,
  waiting: (note: string) => Promise<void>,
): Promise<void> {
  const startedAt = performance.now();
  let last = 'Knative has not made it yet';
  while (performance.now() - startedAt < timeoutMs) {
    const found = await cluster.readRevision(revision);
    const ready = found?.status?.conditions?.find(({ type }) => type === 'Ready');
    if (ready?.status === 'True') return;
    const trouble =
      performance.now() - startedAt > TROUBLE_AFTER_MS ? await cluster.podTrouble(revision) : undefined;
    last = trouble ?? ([ready?.reason, ready?.message].filter(Boolean).join(': ') || last);
    const crashed =
      trouble !== undefined && /ended with|ErrImage|ImagePull|InvalidImage|CrashLoop/.test(trouble);
    // Room on the nodes comes when another pod goes or a node is added; that is no fault of the version.
    const isFault = ready?.status === 'False' && ready.reason !== 'Unschedulable';
    if (isFault || crashed) throw failed(revision, last);
    await waiting(`revision ${revision} gets ready (${last})`);
    await pause(POLL_MS);
  }
  throw failed(revision, `not ready within ${timeoutMs} ms: ${last}`);
}

/** The traffic is where it should be when the status says so for this generation. */
async function untilRouted(
  cluster: Cluster,
  name: string,
  traffic: ReturnType<typeof toTraffic>,
  waiting: (note: string) => Promise<void>,
): Promise<void> {
  const startedAt = performance.now();
  let last = '';
  while (performance.now() - startedAt < ROUTE_TIMEOUT_MS) {
    const live = await cluster.readService(name);
    if (live === undefined) throw gone(name);
    const { metadata, status } = live;
    const settled = traffic.every(({ revisionName: of, percent, tag }) =>
      status?.traffic?.some(
        (each) => each.revisionName === of && (each.percent ?? 0) === percent && each.tag === tag,
      ),
    );
    const routes = status?.conditions?.find(({ type }) => type === 'RoutesReady');
    if (settled && status?.observedGeneration === metadata.generation && routes?.status === 'True') return;
    last = [routes?.reason, routes?.message].filter(Boolean).join(': ');
    await waiting(`the traffic moves${last === '' ? '' : ` (${last})`}`);
    await pause(POLL_MS);
  }
  throw new DandelionError(
    'cluster-unavailable',
    `The traffic of ${name} did not move within ${ROUTE_TIMEOUT_MS} ms: ${last || 'no reason given'}.`,
    { retryAfterMs: 5000 },
  );
}

/** Inside the cluster a tag has a name of its own; from elsewhere the ingress is told the tag's host. */
async function addressOf(cluster: Cluster, settings: DeploySettings, tag: Route['tag']) {
  const { PREDICT_INGRESS: ingress, PREDICT_SERVICE: name } = settings;
  if (ingress === undefined) {
    return { url: `http://${tag}-${name}.${cluster.namespace}.svc.cluster.local/`, host: undefined };
  }
  const live = await cluster.readService(name);
  const url = live?.status?.traffic?.find((each) => each.tag === tag)?.url;
  if (url === undefined) {
    throw new DandelionError('cluster-unavailable', `The tag ${tag} of ${name} has no address yet.`, {
      retryAfterMs: 2000,
    });
  }
  return { url: ingress, host: new URL(url).host };
}

async function readTemplateFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new DandelionError(
      'bad-config',
      `The template of the predict Service cannot be read from ${path}: mount the ConfigMap predict-template, or set PREDICT_TEMPLATE.`,
      { cause },
    );
  }
}

function gone(name: string): DandelionError {
  return new DandelionError('service-missing', `The Service ${name} was deleted meanwhile.`, {
    retryAfterMs: 2000,
  });
}

function failed(revision: string, reason: string): DandelionError {
  return new DandelionError('revision-failed', `Revision ${revision}: ${reason}`);
}
