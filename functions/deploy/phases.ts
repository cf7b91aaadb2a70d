import { pause } from '../../shared/function/abort.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import {
  advanceDeployment,
  type Decision,
  type Deployment,
  renewDeployment,
} from '../../shared/stores/deployments.ts';
import { runStage } from './canary.ts';
import { moveAlias, moveChampion, moveTraffic, takeBack } from './promotion.ts';
import { checkCandidate, makeRevision } from './revision.ts';
import { type Change, isServiceMissing, type Phase, report, type Work } from './work.ts';

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

/** How long Kubernetes is given to clear away the revisions of a Service that was deleted. */
const CLEARED_AFTER_MS = 2000;

/** Brings a deployment from where it stands to its end. @returns the finished row */
export async function runDeployment(work: Work): Promise<Deployment> {
  const { context, lease, stores } = work;
  for (;;) {
    const { phase } = work.deployment;
    if (phase === 'done' || phase === 'rolled-back' || phase === 'superseded') return work.deployment;
    context.signal.throwIfAborted();
    await renewDeployment(stores.db, lease);
    report(work, phase);
    const { decided, ...change } = await phases[phase](work).catch((error: unknown) =>
      beginAgain(work, error),
    );
    const decision = decided && { ...decided, phase, at: new Date().toISOString() };
    work.deployment = await advanceDeployment(stores.db, lease, work.deployment, { ...change, decision });
    if (decision !== undefined) logDecision(work, decision);
  }
}

/** Somebody deleted the Service: what was done to it is gone, so the version is brought to the traffic from the start. */
async function beginAgain({ context }: Work, thrown: unknown): Promise<Change> {
  if (!isServiceMissing(thrown)) throw thrown;
  await pause(CLEARED_AFTER_MS, context.signal);
  const decided = { decision: 'begun again', reason: thrown.message, evidence: {} };
  return { phase: 'revision', stage: 0, previous: null, previousRevision: null, revision: null, decided };
}

function logDecision({ deployment, context }: Work, { phase, decision, reason, evidence }: Decision): void {
  const model = { name: deployment.model, version: deployment.version };
  const labels = { deployment: deployment.id, phase, decision, evidence: JSON.stringify(evidence) };
  context.log.info({ ml: { model }, labels }, `deployment ${phase}: ${decision}: ${reason}`);
}

/**
 * A notice for every decision, told from the row when the deployment has ended: those of attempts that were cut off are
 * among them, and a repeat gives the same ids.
 */
export function tellDecisions(deployment: Deployment, context: FunctionContext): void {
  const model = { name: deployment.model, version: deployment.version };
  for (const { at: time, ...decision } of deployment.decisions) {
    const data = { model, ...decision };
    context.emit({ type: 'dev.dandelion.deployment.decided.v1', subject: deployment.version, time, data });
  }
}
