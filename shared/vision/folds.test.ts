import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { groupedFolds } from './folds.ts';

const samples = fc.array(fc.record({ label: fc.nat(2), group: fc.nat(30) }), {
  minLength: 1,
  maxLength: 200,
});

function dealt(items: { label: number; group: number }[], seed: number) {
  const labels = Int32Array.from(items, ({ label }) => label);
  return groupedFolds(
    labels,
    items.map(({ group }) => `group ${group}`),
    5,
    seed,
  );
}

describe('groupedFolds', () => {
  it('never divides a group', () => {
    fc.assert(
      fc.property(samples, fc.nat(), (items, seed) => {
        const { folds, count } = dealt(items, seed);
        const foldOfGroup = new Map<number, number>();
        for (const [i, { group }] of items.entries()) {
          const fold = folds[i] ?? -1;
          expect(fold).toBeGreaterThanOrEqual(0);
          expect(fold).toBeLessThan(count);
          expect(foldOfGroup.get(group) ?? fold).toBe(fold);
          foldOfGroup.set(group, fold);
        }
      }),
    );
  });

  it('spreads every class evenly where groups are single photos', () => {
    const labels = Int32Array.from({ length: 103 }, (_, i) => (i < 70 ? 0 : 1));
    const { folds, count } = groupedFolds(labels, undefined, 5, 3);
    expect(count).toBe(5);
    for (let fold = 0; fold < 5; fold += 1) {
      const inFold = [...labels].filter((_, i) => folds[i] === fold);
      expect(inFold.filter((label) => label === 0).length).toBe(14);
      expect([6, 7]).toContain(inFold.filter((label) => label === 1).length);
    }
  });

  it('deals the same for the same seed and otherwise for another', () => {
    const labels = Int32Array.from({ length: 60 }, (_, i) => i % 2);
    const deal = (seed: number) => groupedFolds(labels, undefined, 5, seed).folds;
    expect(deal(1)).toEqual(deal(1));
    expect(deal(1)).not.toEqual(deal(2));
  });

  it('makes no more folds than the rarest class has groups', () => {
    const labels = Int32Array.of(0, 0, 0, 0, 0, 0, 1, 1, 1, 1);
    const groups = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'g', 'h', 'i'];
    expect(groupedFolds(labels, groups, 5, 1).count).toBe(3);
  });
});
