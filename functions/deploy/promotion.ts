import { DandelionError } from '../../shared/errors.ts';
import { promoteChampion, readModel } from '../../shared/stores/models.ts';
import type { Route, Serving } from './rollout.ts';
import { type Change, isServiceMissing, servingOf, type Work, waiting } from './work.ts';

/** champion.json is the truth of who serves, so it moves first; traffic and alias follow it. */
export async function moveChampion(work: Work): Promise<Change> {
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

/** All traffic to the new revision; the one before keeps a tag, so that going back is a change of traffic. */
export async function moveTraffic(work: Work): Promise<Change> {
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

/** The registry's alias follows champion.json. */
export async function moveAlias(work: Work): Promise<Change> {
  const { objects, tracker } = work.stores;
  const { model, version } = work.deployment;
  const { training } = await readModel(objects, model, version);
  await tracker.setAlias(model, 'champion', { version, runId: training.runId });
  return { phase: 'done' };
}

/** The version before gets all the traffic again; champion.json was not moved yet. */
export async function takeBack(work: Work): Promise<Change> {
  const before = servingOf(work.deployment);
  if (before !== undefined) {
    await routeAll(work, before).catch((error: unknown) => makeAnew(work, before.version, error));
  }
  return { phase: 'rolled-back' };
}

/** Where somebody deleted the Service, the version before gets one again. */
async function makeAnew(work: Work, version: string, thrown: unknown): Promise<void> {
  if (!isServiceMissing(thrown)) throw thrown;
  const { deployment, rollout, lease } = work;
  const { model } = deployment;
  const revision = await rollout.revisionOf(model, version);
  const wanted = { model, version, revision, serving: undefined, fence: lease.token };
  await rollout.prepare({ ...wanted, waiting: waiting(work) });
  await routeAll(work, { revision, version });
}

async function routeAll(work: Work, to: Serving): Promise<void> {
  await work.rollout.route([{ ...to, share: 100, tag: 'champion' }], work.lease.token, waiting(work));
}
