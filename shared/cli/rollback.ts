/** `npm run rollback`: lets an earlier version serve again. */
import { randomUUID } from 'node:crypto';
import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../errors.ts';
import { createEvent, type Event, eventSchemas, runIdOf } from '../events.ts';
import { encodeBinary } from '../function/cloudevents.ts';
import { schemaFaults } from '../schema-faults.ts';
import { askService, type KubernetesApi, openKubernetesApi, sendToBroker } from './kubernetes-api.ts';
import { readPredictTraffic, readWantedRevision, untilServing } from './predict-service.ts';

const usage = `npm run rollback                     the version that served before the present one serves again
npm run rollback -- --to VERSION     this one does; the one that serves gets predict's image and settings of now

  --model NAME       default dandelion
  --reason TEXT      kept with the decision
  --url URL          address of deploy; default http://localhost:8080/function/deploy of npm start
  --cluster          through the broker of the cluster that KUBECONFIG names
  --namespace NAME   there; default: the context's own, else dandelion
DANDELION_TOKEN is sent where it is set.`;

const options = {
  to: { type: 'string' },
  model: { type: 'string', default: 'dandelion' },
  reason: { type: 'string' },
  url: { type: 'string', default: 'http://localhost:8080/function/deploy' },
  cluster: { type: 'boolean', default: false },
  namespace: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

const TYPE = 'dev.dandelion.rollback.requested.v1';
const BROKER = 'dandelion';
const CLUSTER_TIMEOUT_MS = 300_000;
const run = z.object({
  status: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
  progress: z.object({ note: z.string().optional() }).nullable(),
  result: z.object({ data: eventSchemas['dev.dandelion.model.rolledback.v1'] }).nullable(),
  problem: z.object({ detail: z.string() }).nullable(),
});
const problem = z.object({ detail: z.string() });

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** @throws DandelionError `bad-config` naming what does not fit */
function rollbackRequest(wanted: { model: string; to?: string | undefined; reason: string }): Event {
  const data = eventSchemas[TYPE].safeParse({
    ...{ model: wanted.model, reason: wanted.reason },
    ...(wanted.to === undefined ? {} : { version: wanted.to }),
  });
  if (!data.success) {
    throw new DandelionError('bad-config', `The request does not fit: ${schemaFaults(data.error)}.`);
  }
  const source = `/dandelion/cli/${encodeURIComponent(userInfo().username)}`;
  return createEvent({ type: TYPE, source, id: randomUUID(), data: data.data });
}

/** Sends the request to deploy and follows the run to its end. */
async function rollBackByHttp(url: string, event: Event): Promise<void> {
  const { headers, body } = encodeBinary(event);
  const sent = await ask(`${url}/`, { ...headers, prefer: 'respond-async' }, body);
  const location = sent.headers.get('location');
  if (sent.status !== 202 || location === null) throw await refusal(sent);
  let told: string | undefined;
  for (;;) {
    const seen = await ask(new URL(`${location}?wait=25s`, url).href, {});
    if (!seen.ok) throw await refusal(seen);
    const { status, progress, result, problem: why } = run.parse(await seen.json());
    if (result !== null) {
      const { model, previous } = result.data;
      say(
        previous === model.version
          ? `${previous} serves ${model.name} already.`
          : `${previous} serves ${model.name} again, ${model.version} was taken back.`,
      );
      return;
    }
    if (status === 'failed' || status === 'cancelled') {
      throw new DandelionError('bad-request', why?.detail ?? `The rollback ${status}.`);
    }
    if (progress?.note !== undefined && progress.note !== told) say(progress.note);
    told = progress?.note;
  }
}

async function ask(url: string, headers: Record<string, string>, body?: Uint8Array): Promise<Response> {
  const token = process.env.DANDELION_TOKEN;
  const authorization: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };
  const request = { method: body === undefined ? 'GET' : 'POST', headers: { ...headers, ...authorization } };
  return fetch(url, { ...request, body: body === undefined ? null : new Uint8Array(body) }).catch(
    (cause: unknown) => {
      throw new DandelionError(
        'upstream-unavailable',
        `Nothing answers at ${url}: start the platform with npm start, name deploy's address with --url, or use --cluster.`,
        { cause },
      );
    },
  );
}

async function refusal(response: Response): Promise<DandelionError> {
  const told = problem.safeParse(await response.json().catch(() => undefined));
  const why = told.success ? told.data.detail : `${response.url} answered ${response.status}.`;
  return new DandelionError(response.status >= 500 ? 'upstream-unavailable' : 'bad-request', why);
}

/** Sends the request to the cluster's broker and waits until the traffic has moved. */
async function rollBackOnCluster(
  given: string | undefined,
  to: string | undefined,
  event: Event,
): Promise<void> {
  const api = await openKubernetesApi();
  const namespace = given ?? api.namespace ?? 'dandelion';
  const before = await readPredictTraffic(api, namespace);
  const champion = before?.targets.find(({ tag }) => tag === 'champion');
  const served = champion?.version;
  if (served === undefined && to === undefined) {
    throw new DandelionError(
      'bad-config',
      `No model serves in namespace ${namespace}; say which is to with --to, or name another with --namespace.`,
    );
  }
  if (champion !== undefined && champion.version === to) {
    return renew({ api, namespace, champion }, champion.version, event);
  }
  await sendToBroker(api, { namespace, name: BROKER }, event);
  const serving = await untilServing(api, namespace, {
    wanted: to,
    not: served,
    timeoutMs: CLUSTER_TIMEOUT_MS,
    check: () => rejectRefused(api, namespace, event),
  });
  // Without a Service, someone deleted it: deploy makes it anew.
  say(`${serving} serves again${served === undefined ? '' : `, ${served} was taken back`}.`);
}

/**
 * The broker took the request, so only deploy's ledger tells that it was refused.
 *
 * @throws DandelionError `bad-request` with deploy's own words
 */
async function rejectRefused(api: KubernetesApi, namespace: string, event: Event): Promise<void> {
  const path = `/runs/${runIdOf('deploy', event.source, event.id)}`;
  const { status, text } = await askService(api, { namespace, name: 'deploy' }, { path });
  // Not begun yet, or behind a token that the API server does not pass on.
  if (status !== 200) return;
  const { status: outcome, problem: why } = run.parse(JSON.parse(text));
  if (outcome !== 'failed' && outcome !== 'cancelled') return;
  throw new DandelionError('bad-request', why?.detail ?? `The rollback ${outcome}.`);
}

/** The version that serves goes on with the image and settings that the template names now. */
async function renew(
  at: { api: KubernetesApi; namespace: string; champion: { revision: string } },
  version: string,
  event: Event,
): Promise<void> {
  const { api, namespace, champion } = at;
  const revision = await readWantedRevision(api, namespace, version);
  if (champion.revision === revision) return say(`${version} serves already.`);
  await sendToBroker(api, { namespace, name: BROKER }, event);
  const check = () => rejectRefused(api, namespace, event);
  await untilServing(api, namespace, { wanted: version, revision, timeoutMs: CLUSTER_TIMEOUT_MS, check });
  say(`${version} serves from its new revision ${revision}.`);
}

async function main(words: string[]): Promise<void> {
  const { values } = parseArgs({ args: words, options });
  if (values.help) return say(usage);
  const { model, to, reason = 'npm run rollback' } = values;
  const event = rollbackRequest({ model, to, reason });
  if (values.cluster) return rollBackOnCluster(values.namespace, to, event);
  return rollBackByHttp(values.url.replace(/\/$/, ''), event);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const { message, code } = toDandelionError(error);
  const isOfWords = error instanceof TypeError && 'code' in error;
  process.stderr.write(`${isOfWords ? `${error.message}\n\n${usage}` : message}\n`);
  process.exitCode = isOfWords || code === 'bad-config' || code === 'bad-request' ? 2 : 1;
}
