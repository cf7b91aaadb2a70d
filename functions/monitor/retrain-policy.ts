import type { DriftDecision } from '../../shared/stores/drift-checks.ts';
import type { MonitorSettings } from './config.ts';

/** All that the policy looks at. */
export interface AlarmFacts {
  now: Date;
  /** When drift had models trained before, in order of time; the last day and the cool-down are enough. */
  retrainings: readonly Date[];
  /** Photos with a reviewed label that the champion was not trained on. */
  newLabels: number;
}

export type RetrainPolicy = Pick<
  MonitorSettings,
  'DRIFT_RETRAIN' | 'DRIFT_RETRAIN_COOL_DOWN_MS' | 'DRIFT_RETRAIN_MAX_PER_DAY' | 'DRIFT_RETRAIN_MIN_LABELS'
>;

export const DAY_MS = 86_400_000;

/** Whether drift has a model trained now, or what it waits for: a person's word, labels to learn from, or time. */
export function decideRetraining(facts: AlarmFacts, policy: RetrainPolicy): DriftDecision {
  const { now, retrainings, newLabels } = facts;
  if (policy.DRIFT_RETRAIN === 'never') {
    return { action: 'none', reason: 'DRIFT_RETRAIN is never: a person decides' };
  }
  if (newLabels < policy.DRIFT_RETRAIN_MIN_LABELS) {
    const wanted = policy.DRIFT_RETRAIN_MIN_LABELS;
    return { action: 'wait', reason: `${newLabels} of ${wanted} new photos with a reviewed label` };
  }
  const ageMs = now.getTime() - (retrainings.at(-1)?.getTime() ?? Number.NEGATIVE_INFINITY);
  if (ageMs < policy.DRIFT_RETRAIN_COOL_DOWN_MS) {
    const restMs = policy.DRIFT_RETRAIN_COOL_DOWN_MS - ageMs;
    return {
      action: 'wait',
      reason: `the last training for drift cools down for ${Math.ceil(restMs / 1000)} s more`,
    };
  }
  const today = retrainings.filter((at) => now.getTime() - at.getTime() < DAY_MS).length;
  if (today >= policy.DRIFT_RETRAIN_MAX_PER_DAY) {
    return { action: 'wait', reason: `${today} trainings for drift within a day are the most` };
  }
  return { action: 'retrain', reason: `${newLabels} new photos with a reviewed label` };
}
