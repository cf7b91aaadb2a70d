import { describe, expect, it } from 'vitest';
import { findContradictions, rankSuspects } from './label-doctor.ts';

const classes = ['daisy', 'dandelion', 'grass'];

describe('rankSuspects', () => {
  it('lists photos whose label is not the likeliest class, the surest contradiction first', () => {
    const labels = Int32Array.of(0, 1, 2, 1);
    const one = Float32Array.of(0.8, 0.1, 0.1, 0.5, 0.4, 0.1, 0.05, 0.9, 0.05, 0.1, 0.8, 0.1);
    const other = Float32Array.of(0.6, 0.3, 0.1, 0.5, 0.4, 0.1, 0.15, 0.7, 0.15, 0.5, 0.4, 0.1);
    const suspects = rankSuspects([one, other], { labels, classes });
    expect(suspects.map(({ photo, label, suggested }) => [photo, label, suggested])).toEqual([
      [2, 'grass', 'dandelion'],
      [1, 'dandelion', 'daisy'],
    ]);
    expect(suspects[0]?.suggestedProbability).toBeCloseTo(0.8);
    expect(suspects[0]?.labelProbability).toBeCloseTo(0.1);
  });

  it('lists none where every label is the likeliest', () => {
    expect(rankSuspects([Float32Array.of(0.9, 0.1, 0)], { labels: Int32Array.of(0), classes })).toEqual([]);
  });
});

describe('findContradictions', () => {
  it('pairs photos of one group under different labels, the most alike first', () => {
    const labels = Int32Array.of(0, 1, 0, 2, 2);
    const groups = ['a', 'a', 'b', 'b', 'b'];
    const hashes = [
      '00000000000000ff',
      '00000000000000f0',
      '0000000000000003',
      '0000000000000000',
      '0000000000000003',
    ];
    const found = findContradictions(hashes, { labels, classes, groups });
    expect(found).toEqual([
      { photos: [2, 4], labels: ['daisy', 'grass'], distance: 0 },
      { photos: [2, 3], labels: ['daisy', 'grass'], distance: 2 },
      { photos: [0, 1], labels: ['daisy', 'dandelion'], distance: 4 },
    ]);
  });
});
