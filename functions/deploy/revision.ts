import { pause } from '../../shared/function/abort.ts';
import { renewDeployment } from '../../shared/stores/deployments.ts';
import { type CannedRequest, cannedRequests, probe } from './probes.ts';
import { type Change, failure, rollBack, servingOf, type Work, waiting } from './work.ts';

const CHECK_TRIES = 3;

/**
 * Pins the version to a revision and gets it ready. A rollback takes the one that is still there; to the version that
 * serves, it is a new image of predict that is asked for, and tried as a new version is.
 */
export async function makeRevision(work: Work): Promise<Change> {
  const { deployment, rollout } = work;
  const { model, version, kind } = deployment;
  if (deployment.revision === null) {
    const serving = await rollout.serving(model);
    const goesBack = kind === 'rollback' && serving?.version !== version;
    const found = goesBack ? await rollout.find(model, version) : undefined;
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
  const goesBack = kind === 'rollback' && deployment.previous !== version;
  return { phase: goesBack ? 'champion' : 'check', decided };
}

/** Canned requests through the candidate's tag: does this revision answer as the model itself scores? */
export async function checkCandidate(work: Work): Promise<Change> {
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
