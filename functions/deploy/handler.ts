import { DandelionError } from '../../shared/errors.ts';
import { type Event, parseEventData, runIdOf } from '../../shared/events.ts';
import { pause } from '../../shared/function/abort.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { openDatabase } from '../../shared/stores/database.ts';
import {
  beginDeployment,
  type Deployment,
  hasEnded,
  openDeployment,
  readDeployment,
  releaseDeployment,
} from '../../shared/stores/deployments.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { openTracker } from '../../shared/stores/tracking.ts';
import { canaryPolicy, type DeploySettings, readDeploySettings } from './config.ts';
import { runDeployment, tellDecisions } from './phases.ts';
import { rollbackTarget } from './rollback-target.ts';
import type { Rollout } from './rollout.ts';
import { createPointerRollout } from './rollout-pointer.ts';
import type { Work } from './work.ts';

export const durable = true;

const ROLLBACK = 'dev.dandelion.rollback.requested.v1';

let settings: DeploySettings;
let stores: Work['stores'];
let rollout: Rollout;

export async function init({ env }: InitContext): Promise<void> {
  settings = readDeploySettings(env);
  const objects = openObjects(settings);
  stores = { objects, tracker: openTracker(settings), db: await openDatabase(settings.DATABASE_URL) };
  const inCluster = settings.KUBERNETES_SERVICE_HOST !== undefined;
  const target = settings.DEPLOY_TARGET ?? (inCluster ? 'knative' : 'pointer');
  rollout = target === 'knative' ? await openKnativeRollout() : createPointerRollout(objects);
}

/** Only where there is a cluster are its client's packages loaded. */
async function openKnativeRollout(): Promise<Rollout> {
  const [{ openCluster }, { createKnativeRollout }] = await Promise.all([
    import('./kubernetes.ts'),
    import('./rollout-knative.ts'),
  ]);
  return createKnativeRollout(await openCluster(settings), settings);
}

/**
 * An approved model is tried on a share of the traffic, stage by stage, and serves or is taken back; a requested
 * rollback lets an earlier version serve again. Either goes on where an attempt before it was cut off.
 */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  if (event.cloudEvent?.type === ROLLBACK) return goBack(event.cloudEvent, context);
  const { model, metrics, canary } = parseEventData(event.cloudEvent, 'dev.dandelion.model.approved.v1');
  const policy = canaryPolicy(settings, canary);
  const id = deploymentId(context, event.cloudEvent);
  const wanted = { id, model: model.name, version: model.version, kind: 'deploy' as const, policy };
  const deployment = await deploy(wanted, context);
  const { previous, reason, evidence, phase } = deployment;
  if (phase === 'done') {
    const data = { model, previous: previous === model.version ? null : previous, metrics };
    return context.result('dev.dandelion.model.deployed.v1', data, model.version);
  }
  const why = reason ?? 'a rollback or a later deployment took its place';
  const data = { model, previous, phase: phaseOfEnd(deployment), reason: why, evidence: evidence ?? {} };
  return context.result('dev.dandelion.model.rolledback.v1', data, model.version);
}

async function goBack(event: Event, context: FunctionContext) {
  const { model, version, reason } = parseEventData(event, ROLLBACK);
  const id = deploymentId(context, event);
  const earlier = await readDeployment(stores.db, id);
  // A repeat goes on to the version that its first attempt chose: champion.json may have moved meanwhile.
  const chosen =
    earlier === undefined
      ? await rollbackTarget(stores.objects, model, version, await openDeployment(stores.db, model))
      : { version: earlier.version, from: earlier.previous ?? earlier.version };
  const wanted = {
    id,
    model,
    version: chosen.version,
    kind: 'rollback' as const,
    policy: canaryPolicy(settings),
  };
  const deployment = await deploy(wanted, context);
  if (deployment.phase !== 'done') {
    const why = deployment.reason ?? 'a later deployment took its place';
    throw new DandelionError('revision-failed', `${model} did not go back to ${chosen.version}: ${why}`);
  }
  const evidence = { revision: deployment.revision, previousRevision: deployment.previousRevision };
  return context.result(
    'dev.dandelion.model.rolledback.v1',
    {
      ...{ model: { name: model, version: chosen.from }, previous: deployment.version },
      ...{ phase: 'requested', reason, evidence },
    },
    deployment.version,
  );
}

/** Brings one deployment to its end, and tells what was decided on the way. */
async function deploy(
  wanted: Parameters<typeof beginDeployment>[1],
  context: FunctionContext,
): Promise<Deployment> {
  const earlier = await readDeployment(stores.db, wanted.id);
  const deployment =
    earlier !== undefined && hasEnded(earlier) ? earlier : await deployAlone(wanted, context);
  tellDecisions(deployment, context);
  return deployment;
}

/** As the only deployment of its model; releases the model whatever comes. */
async function deployAlone(
  wanted: Parameters<typeof beginDeployment>[1],
  context: FunctionContext,
): Promise<Deployment> {
  const { deployment, lease } = await beginWhenFree(wanted, context);
  const policy = deployment.policy as Work['policy'];
  try {
    return await runDeployment({ deployment, lease, policy, rollout, stores, context });
  } finally {
    await releaseDeployment(stores.db, lease).catch((error: unknown) =>
      context.log.warn({ err: error }, 'the lease could not be released; it ends by itself'),
    );
  }
}

async function beginWhenFree(wanted: Parameters<typeof beginDeployment>[1], context: FunctionContext) {
  const deadline = performance.now() + settings.DEPLOY_WAIT_MS;
  for (;;) {
    try {
      return await beginDeployment(stores.db, wanted);
    } catch (error) {
      const busy = error instanceof DandelionError && error.code === 'deploy-busy';
      if (!busy || performance.now() > deadline) throw error;
      context.signal.throwIfAborted();
      context.progress(0, 6, error.message);
      await pause(1000, context.signal);
    }
  }
}

function deploymentId({ functionName }: FunctionContext, event: Event | undefined): string {
  return runIdOf(functionName, event?.source ?? '', event?.id ?? '');
}

/** Where a deployment was when it was taken back: the phase of its last decision. */
function phaseOfEnd({ phase, decisions }: Deployment): string {
  return phase === 'superseded' ? phase : (decisions.at(-1)?.phase ?? phase);
}
