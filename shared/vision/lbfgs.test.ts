import { describe, expect, it } from 'vitest';
import { minimise, type Objective } from './lbfgs.ts';

/** Half the sum of scale * (x - target)^2, badly scaled on purpose. */
const scales = [1, 10, 100, 1000, 0.1];
const targets = [3, -1, 0.5, 2, -4];
const bowl: Objective = (point) => ({
  loss: scales.reduce((sum, scale, i) => sum + (scale * ((point[i] ?? 0) - (targets[i] ?? 0)) ** 2) / 2, 0),
  gradient: point.map((value, i) => (scales[i] ?? 0) * (value - (targets[i] ?? 0))),
});

describe('minimise', () => {
  it('finds the minimum of a badly scaled bowl in few steps', async () => {
    const { point, losses } = await minimise(bowl, new Float64Array(5), {
      gradientTolerance: 1e-8,
      lossTolerance: 0,
    });
    for (const [i, value] of point.entries()) expect(value).toBeCloseTo(targets[i] ?? 0, 6);
    expect(losses.length).toBeLessThan(40);
  });

  it('never goes uphill', async () => {
    const { losses } = await minimise(bowl, Float64Array.of(50, -20, 9, 7, 100));
    for (const [i, loss] of losses.entries()) expect(loss).toBeLessThanOrEqual(losses[i - 1] ?? Infinity);
  });

  it('finds the minimum of log-cosh, whose curvature fades', async () => {
    const valley: Objective = (point) => ({
      loss: point.reduce((sum, value, i) => sum + Math.log(Math.cosh(value - i)), 0),
      gradient: point.map((value, i) => Math.tanh(value - i)),
    });
    const start = Float64Array.of(9, -8, 7);
    const { point } = await minimise(valley, start, { gradientTolerance: 1e-7, lossTolerance: 0 });
    for (const [i, value] of point.entries()) expect(value).toBeCloseTo(i, 5);
    expect(start).toEqual(Float64Array.of(9, -8, 7));
  });

  it('stops where it is when the caller throws between steps', async () => {
    const stop = minimise(bowl, new Float64Array(5), {
      beforeStep(step) {
        if (step === 2) throw new Error('enough');
      },
    });
    await expect(stop).rejects.toThrow('enough');
  });
});
