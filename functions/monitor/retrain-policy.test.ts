import { describe, expect, it } from 'vitest';
import { decideRetraining, type RetrainPolicy } from './retrain-policy.ts';

const now = new Date('2026-06-01T12:00:00Z');
const hoursAgo = (hours: number) => new Date(now.getTime() - hours * 3_600_000);
const policy: RetrainPolicy = {
  DRIFT_RETRAIN: 'auto',
  DRIFT_RETRAIN_COOL_DOWN_MS: 6 * 3_600_000,
  DRIFT_RETRAIN_MAX_PER_DAY: 2,
  DRIFT_RETRAIN_MIN_LABELS: 20,
};
const decide = (retrainings: Date[], newLabels: number, changed: Partial<RetrainPolicy> = {}) =>
  decideRetraining({ now, retrainings, newLabels }, { ...policy, ...changed });

describe('the policy of retraining', () => {
  it('trains when there is something new to learn', () => {
    expect(decide([], 20).action).toBe('retrain');
    expect(decide([hoursAgo(7)], 20).action).toBe('retrain');
  });

  it('waits for labels, unless it is told not to', () => {
    expect(decide([], 19)).toEqual({ action: 'wait', reason: '19 of 20 new photos with a reviewed label' });
    expect(decide([], 0, { DRIFT_RETRAIN_MIN_LABELS: 0 }).action).toBe('retrain');
  });

  it('waits until the last training has cooled down', () => {
    expect(decide([hoursAgo(5)], 20)).toMatchObject({
      action: 'wait',
      reason: expect.stringContaining('3600 s'),
    });
  });

  it('trains no more than so often a day', () => {
    expect(decide([hoursAgo(20), hoursAgo(10)], 20)).toMatchObject({ action: 'wait' });
    expect(decide([hoursAgo(30), hoursAgo(10)], 20).action).toBe('retrain');
  });

  it('leaves it to a person where that is wanted', () => {
    expect(decide([], 100, { DRIFT_RETRAIN: 'never' }).action).toBe('none');
  });
});
