import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import { pause } from '../../shared/function/abort.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  advanceDeployment,
  type Decision,
  type Deployment,
  type DeploymentChange,
  type DeploymentLease,
  phaseAgeMs,
  readSamples,
  renewDeployment,
  saveSamples,
} from '../../shared/stores/deployments.ts';
import { promoteChampion, readChampion, readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { Tracker } from '../../shared/stores/tracking.ts';
import { type CanaryPolicy, judgeStage } from './decision.ts';
import { type CannedRequest, cannedRequests, probe, probeRound } from './probes.ts';
import type { Rollout, Route } from './rollout.ts';

/** What one attempt at a deployment works with. */
export interface Work {
  deployment: Deployment;
  lease: DeploymentLease;
  policy: CanaryPolicy;
  rollout: Rollout;
  stores: { db: Database; objects: ObjectStore; tracker: Tracker };
  context: FunctionContext;
}

type Change = DeploymentChange & { decided?: Omit<Decision, 'at' | 'phase'> };
type Phase = (work: Work) => Promise<Change>;

const CHECK_TRIES = 3;
const BETWEEN_ROUNDS_MS = 20;

/** What each phase does, and where it leads. Every one can be cut off anywhere and begun again. */
const phases: Record<Exclude<Deployment['phase'], 'done' | 'rolled-back' | 'superseded'>, Phase> = {
  revision: makeRevision,
  check: checkCandidate,
  canary: runStage,
  champion: moveChampion,
  traffic: moveTraffic,
  alias: moveAlias,
  'roll-back': takeBack,
};
const order = ['revision', 'check', 'canary', 'champion', 'traffic', 'alias', 'done'];

/** Brings a deployment from where it stands to its end. @returns the finished row */
export async function runDeployment(work: Work): Promise<Deployment> {
  const { context, lease, stores } = work;
  for (;;) {
    const { phase } = work.deployment;
    if (phase === 'done' || phase === 'rolled-back' || phase === 'superseded') return work.deployment;
    context.signal.throwIfAborted();
    await renewDeployment(stores.db, lease);
    report(work, phase);
    const { decided, ...change } = await phases[phase](work);
    const decision = decided && { ...decided, phase, at: new Date().toISOString() };
    work.deployment = await advanceDeployment(stores.db, lease, work.deployment, { ...change, decision });
    if (decision !== undefined) tell(work, decision);
  }
}

async function makeRevision(work: Work): Promise<Change> {
  const { deployment, rollout } = work;
  const { model, version, kind } = deployment;
  if (deployment.revision === null) {
    const serving = await rollout.serving(model);
    const found = kind === 'rollback' ? await rollout.find(model, version) : undefined;
    const revision = found ?? (await rollout.revisionOf(model, version));
    const previous = serving?.version ?? null;
    return { previous, previousRevision: serving?.revision ?? null, revision };
  }
  const standing = kind === 'rollback' ? await rollout.find(model, version) : undefined;
  if (standing !== deployment.revision) {
    try {
      await rollout.prepare({
        ...{ model, version, revision: deployment.revision, fence: work.lease.token },
        serving: servingOf(deployment),
        waiting: waiting(work),
      });
    } catch (error) {
      return failure(work, error);
    }
  }
  const decided = {
    decision: 'ready',
    reason: `revision ${deployment.revision} is ready`,
    evidence: { previous: deployment.previousRevision },
  };
  return { phase: kind === 'rollback' ? 'champion' : 'check', decided };
}

async function checkCandidate(work: Work): Promise<Change> {
  const { deployment, rollout } = work;
  const ask = rollout.ask('candidate');
  if (ask === undefined) return { phase: rollout.canary ? 'canary' : 'champion' };
  let canned: CannedRequest[];
  try {
    canned = await cannedRequests(work.stores, deployment.model, deployment.version);
  } catch (error) {
    return failure(work, error);
  }
  const wanted = { version: deployment.version, trace: deployment.id, signal: work.context.signal };
  for (const [index, request] of canned.entries()) {
    let fault: string | undefined;
    for (let tries = 0; tries < CHECK_TRIES; tries++) {
      ({ fault } = await probe(ask, request, wanted));
      if (fault === undefined) break;
      await renewDeployment(work.stores.db, work.lease);
      await pause(1000, work.context.signal);
    }
    if (fault !== undefined) {
      return rollBack('infra check', `canned request ${index + 1} of ${canned.length}: ${fault}`, {
        canned: canned.length,
      });
    }
  }
  const decided = {
    decision: 'passed',
    reason: `${canned.length} canned requests were answered as the model itself scores them`,
    evidence: { canned: canned.length },
  };
  const unchanged = deployment.previous === null || deployment.previousRevision === deployment.revision;
  return { phase: unchanged ? 'champion' : 'canary', decided };
}

/** One stage: its share of the traffic, until its figures say pass or fail. */
async function runStage(work: Work): Promise<Change> {
  const { deployment, policy, rollout, context, stores } = work;
  const share = policy.shares[deployment.stage];
  const before = servingOf(deployment);
  if (share === undefined || before === undefined) return { phase: 'champion' };
  const { revision, version, model } = deployment;
  const [candidateAsk, previousAsk] = [rollout.ask('candidate'), rollout.ask('champion')];
  if (revision === null || candidateAsk === undefined || previousAsk === undefined)
    return { phase: 'champion' };
  const routes: Route[] = [
    { ...before, share: 100 - share, tag: 'champion' },
    { revision, version, share, tag: 'candidate' },
  ];
  await rollout.route(routes, work.lease.token, waiting(work));
  const canned = await cannedRequests(stores, model, version);
  // The version before is asked with the same photos, and held to its own scores.
  const compared = before.version === version ? canned : await cannedRequests(stores, model, before.version);
  const request = { trace: deployment.id, signal: context.signal };
  for (let round = 0; ; round++) {
    context.signal.throwIfAborted();
    const candidate = await readSamples(stores.db, deployment, version);
    const previous =
      before.version === version ? undefined : await readSamples(stores.db, deployment, before.version);
    const { verdict, reason, evidence } = judgeStage(candidate, previous, policy);
    const late = (await phaseAgeMs(stores.db, deployment)) > policy.stageTimeoutMs;
    const figures = { share, ...evidence };
    if (verdict === 'fail') return rollBack(`stage ${share} %`, reason, figures);
    if (verdict === 'pass') return passStage(work, share, reason, figures);
    if (late) {
      const limit = `not shown to be good within ${policy.stageTimeoutMs} ms: ${reason}`;
      return rollBack(`stage ${share} %`, limit, figures);
    }
    await renewDeployment(stores.db, work.lease);
    report(work, `canary ${share} %: ${reason}`);
    const photo = canned[round % canned.length];
    const same = compared[round % compared.length];
    if (photo === undefined || same === undefined) throw new DandelionError('internal', 'no canned request');
    const asked = [
      { ask: previousAsk, version: before.version, canned: same },
      { ask: candidateAsk, version, canned: photo },
    ];
    await saveSamples(stores.db, deployment, await probeRound(asked, request));
    await pause(BETWEEN_ROUNDS_MS, context.signal);
  }
}

function passStage(work: Work, share: number, reason: string, evidence: Decision['evidence']): Change {
  const { deployment, policy } = work;
  const decided = { decision: 'passed', reason: `${share} % of the traffic: ${reason}`, evidence };
  const last = deployment.stage + 1 >= policy.shares.length;
  return last ? { phase: 'champion', decided } : { stage: deployment.stage + 1, decided };
}

/** champion.json is the truth of who serves, so it moves first; traffic and alias follow it. */
async function moveChampion(work: Work): Promise<Change> {
  const { model, version } = work.deployment;
  const champion = await promoteChampion(work.stores.objects, model, version);
  const reason = `${version} serves, ${champion.previous ?? 'nothing'} before it`;
  return {
    phase: 'traffic',
    // Without revisions, who served before stands in champion.json alone.
    previous: work.deployment.previous ?? champion.previous,
    decided: { decision: 'promoted', reason, evidence: { ...champion } },
  };
}

async function moveTraffic(work: Work): Promise<Change> {
  const { deployment, rollout } = work;
  const { revision, version } = deployment;
  if (revision === null)
    throw new DandelionError('internal', 'a deployment without a revision has no traffic');
  const before = servingOf(deployment);
  const routes: Route[] = [{ revision, version, share: 100, tag: 'champion' }];
  if (before !== undefined && before.revision !== revision)
    routes.push({ ...before, share: 0, tag: 'previous' });
  await rollout.route(routes, work.lease.token, waiting(work));
  const deleted = await rollout.tidy(routes.map((route) => route.revision));
  const decided = {
    decision: 'routed',
    reason: `all traffic goes to ${revision}`,
    evidence: { routes, deleted },
  };
  return { phase: 'alias', decided };
}

async function moveAlias(work: Work): Promise<Change> {
  const { objects, tracker } = work.stores;
  const { model, version } = work.deployment;
  const { training } = await readModel(objects, model, version);
  await tracker.setAlias(model, 'champion', { version, runId: training.runId });
  return { phase: 'done' };
}

/** The version before gets all the traffic again; champion.json was not moved yet. */
async function takeBack(work: Work): Promise<Change> {
  const { deployment, rollout } = work;
  const before = servingOf(deployment);
  if (before !== undefined) {
    await rollout.route([{ ...before, share: 100, tag: 'champion' }], work.lease.token, waiting(work));
  }
  return { phase: 'rolled-back' };
}

function rollBack(where: string, reason: string, evidence: Decision['evidence']): Change {
  const decided = { decision: 'rolled back', reason: `${where}: ${reason}`, evidence };
  return { phase: 'roll-back', reason: decided.reason, evidence, decided };
}

/** A fault of the new version is a reason to take it back; trouble of the servers around it is not. */
function failure(work: Work, thrown: unknown): Change {
  const error = toDandelionError(thrown);
  const itsOwn = error.code === 'revision-failed' || error.code === 'model-broken';
  if (!itsOwn || !work.rollout.canary) throw thrown;
  return rollBack(error.code, error.message, { revision: work.deployment.revision });
}

function servingOf({ previous, previousRevision }: Deployment) {
  return previous === null || previousRevision === null
    ? undefined
    : { version: previous, revision: previousRevision };
}

function waiting(work: Work) {
  return async (note: string): Promise<void> => {
    work.context.signal.throwIfAborted();
    await renewDeployment(work.stores.db, work.lease);
    report(work, note);
  };
}

function report({ deployment, context }: Work, note: string): void {
  const place = order.indexOf(deployment.phase);
  context.progress(place < 0 ? order.length - 2 : place, order.length - 1, note);
}

/** Every decision is a log line and a notice. */
function tell({ deployment, context }: Work, { phase, decision, reason, evidence }: Decision): void {
  const model = { name: deployment.model, version: deployment.version };
  const labels = { deployment: deployment.id, phase, decision, evidence: JSON.stringify(evidence) };
  context.log.info({ ml: { model }, labels }, `deployment ${phase}: ${decision}: ${reason}`);
  const data = { model, phase, decision, reason, evidence };
  context.emit({ type: 'dev.dandelion.deployment.decided.v1', subject: deployment.version, data });
}

/** The version that a rollback goes to. */
export async function rollbackTarget(
  objects: ObjectStore,
  model: string,
  wanted: string | undefined,
  underWay: Deployment | undefined,
): Promise<{ version: string; from: string }> {
  const champion = (await readChampion(objects, model))?.champion;
  if (champion === undefined) {
    throw new DandelionError('nothing-to-roll-back', `No ${model} model has been deployed yet.`);
  }
  // While a newer version is being tried, going back means to stop that.
  const trying = underWay?.kind === 'deploy' && underWay.version !== champion.version;
  const version = wanted ?? (trying ? champion.version : champion.previous);
  if (version === null) {
    throw new DandelionError(
      'nothing-to-roll-back',
      `${champion.version} is the first ${model} that serves.`,
    );
  }
  await readModel(objects, model, version).catch((error: unknown) => {
    if (!(error instanceof DandelionError) || error.code !== 'model-unknown') throw error;
    throw new DandelionError('nothing-to-roll-back', `${error.message} Name a version that is there.`);
  });
  return { version, from: trying ? underWay.version : champion.version };
}
