import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  type Decision,
  type Deployment,
  type DeploymentChange,
  type DeploymentLease,
  renewDeployment,
} from '../../shared/stores/deployments.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import type { Tracker } from '../../shared/stores/tracking.ts';
import type { CanaryPolicy } from './decision.ts';
import type { Rollout, Serving } from './rollout.ts';

/** What one attempt at a deployment works with. */
export interface Work {
  deployment: Deployment;
  lease: DeploymentLease;
  policy: CanaryPolicy;
  rollout: Rollout;
  stores: { db: Database; objects: ObjectStore; tracker: Tracker };
  context: FunctionContext;
}

/** What a phase changes in the deployment's row, and what it decided. */
export type Change = DeploymentChange & { decided?: Omit<Decision, 'at' | 'phase'> };
export type Phase = (work: Work) => Promise<Change>;

/** The phases that lead to the end, for how far it is. */
const order = ['revision', 'check', 'canary', 'champion', 'traffic', 'alias', 'done'];

/** The change that takes the new version back. */
export function rollBack(where: string, reason: string, evidence: Decision['evidence']): Change {
  const decided = { decision: 'rolled back', reason: `${where}: ${reason}`, evidence };
  return { phase: 'roll-back', reason: decided.reason, evidence, decided };
}

/** A fault of the new version is a reason to take it back; trouble of the servers around it is not. */
export function failure(work: Work, thrown: unknown): Change {
  const error = toDandelionError(thrown);
  const itsOwn = error.code === 'revision-failed' || error.code === 'model-broken';
  if (!itsOwn || !work.rollout.canary) throw thrown;
  return rollBack(error.code, error.message, { revision: work.deployment.revision });
}

/** Whether somebody deleted the predict Service under a deployment. */
export function isServiceMissing(thrown: unknown): thrown is DandelionError {
  return thrown instanceof DandelionError && thrown.code === 'service-missing';
}

/** Who served when the deployment began. */
export function servingOf({ previous, previousRevision }: Deployment): Serving | undefined {
  return previous === null || previousRevision === null
    ? undefined
    : { version: previous, revision: previousRevision };
}

/** For waits: keeps the lease, says what is waited for, and ends with the attempt. */
export function waiting(work: Work) {
  return async (note: string): Promise<void> => {
    work.context.signal.throwIfAborted();
    await renewDeployment(work.stores.db, work.lease);
    report(work, note);
  };
}

/** Tells how far the deployment is. */
export function report({ deployment, context }: Work, note: string): void {
  const place = order.indexOf(deployment.phase);
  context.progress(place < 0 ? order.length - 2 : place, order.length - 1, note);
}
