import { expect, it } from 'vitest';
import { seededRandom } from './random.ts';
import { areaUnderCurve, evenWeights, rank, rocCurve } from './ranking.ts';

const PHOTOS = 120;
const CLASSES = 4;

/** Rough scores, so that many are tied. */
function drawn(seed: number) {
  const random = seededRandom(seed);
  const labels = Int32Array.from({ length: PHOTOS }, () => Math.floor(random() * CLASSES));
  const scores = Float32Array.from(
    { length: PHOTOS * CLASSES },
    (_, at) =>
      Math.round((random() + (labels[Math.floor(at / CLASSES)] === at % CLASSES ? 0.3 : 0)) * 12) / 12,
  );
  return { labels, scores, weights: Uint16Array.from(labels, () => Math.floor(random() * 4)) };
}

/** By the definition: pair by pair. */
function areaByPairs({ labels, scores, weights }: ReturnType<typeof drawn>, c: number): number {
  let [ordered, pairs] = [0, 0];
  for (const [positive, ownLabel] of labels.entries()) {
    for (const [negative, otherLabel] of labels.entries()) {
      if (ownLabel !== c || otherLabel === c) continue;
      const count = (weights[positive] ?? 0) * (weights[negative] ?? 0);
      const lead = (scores[positive * CLASSES + c] ?? 0) - (scores[negative * CLASSES + c] ?? 0);
      ordered += count * (lead > 0 ? 1 : lead === 0 ? 0.5 : 0);
      pairs += count;
    }
  }
  return ordered / pairs;
}

it('has the area of all pairs, to the bit, however often each photo counts', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const data = drawn(seed);
    const sum = data.weights.reduce((a, b) => a + b, 0);
    for (let c = 0; c < CLASSES; c += 1) {
      const ranking = rank(data.scores, data.labels, CLASSES, c);
      expect(areaUnderCurve(ranking, { of: data.weights, sum })).toBe(areaByPairs(data, c));
    }
  }
});

it('has a curve whose area is that of the pairs', () => {
  const { labels, scores } = drawn(3);
  const ranking = rank(scores, labels, CLASSES, 2);
  const curve = rocCurve(ranking);
  let area = 0;
  for (const [at, [x, y]] of curve.entries()) {
    const [beforeX, beforeY] = curve[at - 1] ?? [0, 0];
    area += ((x - beforeX) * (y + beforeY)) / 2;
  }
  expect(curve.at(-1)).toEqual([1, 1]);
  expect(area).toBeCloseTo(areaUnderCurve(ranking, evenWeights(PHOTOS)) ?? -1, 12);
});

it('looks at no photo below the last positive: of many classes most photos are there', () => {
  const photos = 3000;
  const labels = Int32Array.from({ length: photos }, (_, photo) => (photo < 10 ? 0 : 1));
  const scores = Float32Array.from(labels, (_, photo) => 1 - photo / photos);
  let looks = 0;
  const of = new Proxy(new Uint16Array(photos).fill(1), {
    get(weights, key) {
      looks += 1;
      return Reflect.get(weights, key);
    },
  });
  expect(areaUnderCurve(rank(scores, labels, 1, 0), { of, sum: photos })).toBe(1);
  expect(looks).toBe(10);
});

it('puts scores that are no numbers last', () => {
  const ranking = rank(Float32Array.of(Number.NaN, 0.5, 0.4), Int32Array.of(0, 0, 1), 1, 0);
  expect(areaUnderCurve(ranking, evenWeights(3))).toBe(0.5);
});
