import { describe, expect, it } from 'vitest';
import { evaluateSettings } from './config.ts';
import { type CandidateScore, judge } from './gate.ts';

const limits = evaluateSettings.parse({
  DATABASE_URL: 'postgres://localhost/x',
  OBJECTS_DIR: '/x',
  TRACKING_DIR: '/x',
});

/** A score on `photos` test photos of which the first `wrong` were labelled wrong. */
function score(photos: number, wrong: number, change: Partial<CandidateScore> = {}): CandidateScore {
  const accuracy = (photos - wrong) / photos;
  return {
    metrics: { images: photos, accuracy, interval: [0, 1], rocAuc: 1, ece: 0.02, perClass: {} },
    overconfidence: 0.02,
    correct: Array.from({ length: photos }, (_, index) => index >= wrong),
    latencyMs: 10,
    undisturbedMs: 8,
    sizeBytes: 1000,
    servingDeviation: 1e-6,
    ...change,
  };
}

function failed(candidate: CandidateScore, champion?: CandidateScore): string[] {
  return judge(candidate, champion, limits).flatMap(({ check, passed }) => (passed ? [] : [check]));
}

describe('the promotion gate', () => {
  it('lets a first model through on the floor alone', () => {
    expect(failed(score(100, 15))).toEqual([]);
    expect(failed(score(100, 16))).toEqual(['floor']);
  });

  it('lets a candidate within the margin of the champion through, and none below it', () => {
    expect(failed(score(100, 7), score(100, 5))).toEqual([]);
    expect(failed(score(100, 8), score(100, 5))).toEqual(['non-inferiority']);
  });

  it('tells how many photos were won and lost, photo by photo', () => {
    const champion = score(100, 5);
    const mirrored = { ...score(100, 5), correct: [...champion.correct].reverse() };
    const check = judge(mirrored, champion, limits).find(({ check }) => check === 'non-inferiority');
    expect(check).toMatchObject({ passed: true, value: 0 });
    expect(check?.detail).toContain('5 won, 5 lost');
  });

  it('refuses a model that is surer than right, slow, large, or served otherwise than measured', () => {
    const champion = score(100, 5);
    expect(failed(score(100, 5, { overconfidence: 0.2 }), champion)).toEqual(['calibration']);
    expect(failed(score(100, 5, { undisturbedMs: 17 }), champion)).toEqual(['latency']);
    // Measured while others wanted the processor.
    expect(failed(score(100, 5, { latencyMs: 90 }), champion)).toEqual([]);
    expect(failed(score(100, 5, { sizeBytes: 2001 }), champion)).toEqual(['size']);
    expect(failed(score(100, 5, { servingDeviation: 0.5 }), champion)).toEqual(['serving-agreement']);
  });
});
