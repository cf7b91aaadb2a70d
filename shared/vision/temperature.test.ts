import { describe, expect, it } from 'vitest';
import { normal, seededRandom } from './random.ts';
import { fitTemperature, logLossAt } from './temperature.ts';

/** Labels drawn from the softmax of logits: with these logits the right temperature is 1. */
function calibrated(count: number) {
  const random = seededRandom(11);
  const logits = Float64Array.from({ length: count * 2 }, () => 2 * normal(random));
  const labels = Int32Array.from({ length: count }, (_, i) => {
    const odds = Math.exp((logits[2 * i] ?? 0) - (logits[2 * i + 1] ?? 0));
    return random() < odds / (1 + odds) ? 0 : 1;
  });
  return { logits, labels };
}

describe('fitTemperature', () => {
  const { logits, labels } = calibrated(20_000);

  it.each([0.25, 1, 5])('recovers by what calibrated logits were multiplied (%d)', (factor) => {
    const scaled = logits.map((logit) => logit * factor);
    expect(fitTemperature(scaled, labels, 2) / factor).toBeCloseTo(1, 1);
  });

  it('gives the lowest log-loss of its neighbourhood', () => {
    const best = fitTemperature(logits, labels, 2);
    for (const other of [best * 0.95, best * 1.05]) {
      expect(logLossAt(logits, labels, 2, best)).toBeLessThan(logLossAt(logits, labels, 2, other));
    }
  });

  it('is no surer than the number of photos allows where every answer is right', () => {
    for (const photos of [20, 200]) {
      const right = Float64Array.from({ length: photos * 2 }, (_, i) => ((i >> 1) % 2 === i % 2 ? 5 : -5));
      const truth = Int32Array.from({ length: photos }, (_, i) => i % 2);
      const temperature = fitTemperature(right, truth, 2);
      const probability = 1 / (1 + Math.exp(-10 / temperature));
      expect(probability).toBeCloseTo((photos / 2 + 1) / (photos / 2 + 2), 3);
    }
  });

  it('stays finite where every answer is right or nothing is told apart', () => {
    const sure = fitTemperature(Float64Array.of(5, 0, 0, 5), Int32Array.of(0, 1), 2);
    const even = fitTemperature(new Float64Array(4), Int32Array.of(0, 1), 2);
    for (const temperature of [sure, even]) {
      expect(temperature).toBeGreaterThan(0);
      expect(Number.isFinite(temperature)).toBe(true);
    }
  });
});
