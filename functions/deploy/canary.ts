import { DandelionError } from '../../shared/errors.ts';
import { pause } from '../../shared/function/abort.ts';
import { readSamples, saveSamples } from '../../shared/stores/deployment-samples.ts';
import { type Decision, phaseAgeMs, renewDeployment } from '../../shared/stores/deployments.ts';
import { judgeStage } from './decision.ts';
import { cannedRequests, probeRound } from './probes.ts';
import type { Route } from './rollout.ts';
import { type Change, report, rollBack, servingOf, type Work, waiting } from './work.ts';

const BETWEEN_ROUNDS_MS = 20;

/** One stage: its share of the traffic, until its figures say pass or fail. */
export async function runStage(work: Work): Promise<Change> {
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
