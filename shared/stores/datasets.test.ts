import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignSplits, type DatasetCandidate, datasetVersionOf, summariseDataset } from './datasets.ts';

function candidates(label: string, photos: number, photosPerGroup = 1): DatasetCandidate[] {
  return Array.from({ length: photos }, (_, index) => ({
    sha256: `${label}-${index}`,
    source: `${label}/${index}.jpg`,
    label,
    group: `${label}-group-${Math.floor(index / photosPerGroup)}`,
    split: null,
    groupSplits: [],
    qualityFlags: [],
  }));
}

function countOf(images: readonly { label: string; split: string }[], label: string, split: string): number {
  return images.filter((image) => image.label === label && image.split === split).length;
}

describe('assigning splits', () => {
  it('comes near 70/15/15 on many photos', () => {
    const { splits, images } = summariseDataset(assignSplits('m', candidates('a', 4000)).images);
    expect(splits.train / images).toBeCloseTo(0.7, 1);
    expect(splits.validation / images).toBeCloseTo(0.15, 1);
    expect(splits.test / images).toBeCloseTo(0.15, 1);
  });

  it('keeps at least 5 photos of a class in validation and test, 3 of a class of 10', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 10, max: 60 }),
        fc.string({ minLength: 1, maxLength: 5 }),
        (photos, model) => {
          const { images } = assignSplits(model, [...candidates('a', photos), ...candidates('b', 100)]);
          const least = Math.min(5, Math.floor(photos * 0.3));
          expect(countOf(images, 'a', 'test')).toBeGreaterThanOrEqual(least);
          expect(countOf(images, 'a', 'validation')).toBeGreaterThanOrEqual(least);
          expect(countOf(images, 'a', 'train')).toBeGreaterThan(0);
        },
      ),
    );
  });

  it('never parts near duplicates', () => {
    const { images } = assignSplits('m', candidates('a', 300, 3));
    const splitsOfGroup = new Map<string, Set<string>>();
    for (const { group, split } of images) {
      splitsOfGroup.set(group, (splitsOfGroup.get(group) ?? new Set()).add(split));
    }
    expect([...splitsOfGroup.values()].every((splits) => splits.size === 1)).toBe(true);
  });

  it('never moves a photo that has its split, whatever joins later', () => {
    const first = assignSplits('m', candidates('a', 40)).images;
    const splitOf = new Map(first.map(({ sha256, split }) => [sha256, split]));
    const later = candidates('a', 90).map((item) => {
      const split = splitOf.get(item.sha256) ?? null;
      return { ...item, split, groupSplits: split === null ? [] : [split] };
    });
    const second = assignSplits('m', later).images;
    for (const { sha256, split } of first)
      expect(second.find((image) => image.sha256 === sha256)?.split).toBe(split);
  });

  it('gives a new photo the split of the known photos it resembles', () => {
    const [fresh] = candidates('a', 1);
    if (fresh === undefined) throw new Error('one photo was asked for');
    for (const split of ['train', 'validation', 'test'] as const) {
      expect(assignSplits('m', [{ ...fresh, groupSplits: [split] }]).images).toMatchObject([{ split }]);
    }
  });

  it('quarantines a new photo that resembles photos of two splits', () => {
    const torn = candidates('a', 3, 3).map((item, index) => ({
      ...item,
      split: ([null, 'train', 'test'] as const)[index] ?? null,
      groupSplits: ['test' as const, 'train' as const],
    }));
    const { images, quarantined } = assignSplits('m', torn);
    expect(quarantined.map(({ sha256 }) => sha256)).toEqual(['a-0']);
    expect(images.map(({ split }) => split)).toEqual(['train', 'test']);
  });
});

describe('a dataset version', () => {
  it('depends on photos, labels and splits, not on their order', () => {
    const { images } = assignSplits('m', candidates('a', 30));
    const version = datasetVersionOf(images);
    expect(version).toMatch(/^d[0-9a-f]{12}$/);
    expect(datasetVersionOf([...images].reverse())).toBe(version);
    expect(datasetVersionOf(images.slice(1))).not.toBe(version);
    const relabelled = images.map((image, index) => (index === 0 ? { ...image, label: 'b' } : image));
    expect(datasetVersionOf(relabelled)).not.toBe(version);
  });
});

it('counts classes by any name a class may have', () => {
  const names = ['constructor', 'toString', 'valueOf'];
  const { images } = assignSplits(
    'm',
    names.flatMap((name) => candidates(name, 10)),
  );
  expect(summariseDataset(images).classes).toEqual({ constructor: 10, toString: 10, valueOf: 10 });
});
