import { describe, expect, it } from 'vitest';
import {
  type Contender,
  crossValidate,
  type Fold,
  pairedGain,
  type Samples,
  summariseRepeats,
} from './cross-validation.ts';
import { wilsonInterval } from './metrics.ts';

const photos = 60;
const samples: Samples = {
  labels: Int32Array.from({ length: photos }, (_, photo) => photo % 3),
  classes: ['daisy', 'dandelion', 'grass'],
  groups: Array.from({ length: photos }, (_, photo) => `group-${Math.floor(photo / 6)}-${photo % 3}`),
};
const repeats = { folds: 5, seeds: 3 };

/** Knows the answer, but for photos it is told to get wrong. */
function oracle(isWrong: (photo: number) => boolean): Contender {
  return async ({ heldOut }) =>
    Float32Array.from(
      heldOut.flatMap((photo) => {
        const answer = ((samples.labels[photo] ?? 0) + (isWrong(photo) ? 1 : 0)) % 3;
        return samples.classes.map((_, c) => (c === answer ? 0.8 : 0.1));
      }),
    );
}

describe('crossValidate', () => {
  it('holds each photo out once a repeat, and never divides a group', async () => {
    const seen: number[][] = [[], [], []];
    const contender: Contender = async (fold) => {
      const groupOf = (photo: number) => samples.groups[photo];
      const learnt = new Set(fold.training.map(groupOf));
      expect(fold.heldOut.filter((photo) => learnt.has(groupOf(photo)))).toEqual([]);
      expect(fold.training.length + fold.heldOut.length).toBe(photos);
      seen[fold.seed]?.push(...fold.heldOut);
      return new Float32Array(fold.heldOut.length * 3);
    };
    await crossValidate(samples, [contender], repeats);
    for (const ofRepeat of seen)
      expect(ofRepeat.toSorted((a, b) => a - b)).toEqual([...samples.labels.keys()]);
  });

  it('gives every contender the same folds, others in each repeat', async () => {
    const met: Fold[][] = [[], []];
    const contenders = met.map(
      (list): Contender =>
        async (fold) => {
          list.push(fold);
          return new Float32Array(fold.heldOut.length * 3);
        },
    );
    await crossValidate(samples, contenders, repeats);
    for (const [index, fold] of (met[0] ?? []).entries()) expect(met[1]?.[index]).toBe(fold);
    expect(new Set(met[0]?.map(({ heldOut }) => heldOut.join())).size).toBe(15);
  });

  it('puts answers in the place of their photos and counts its folds', async () => {
    const counted: number[][] = [];
    const [answers = []] = await crossValidate(samples, [oracle(() => false)], repeats, (...counts) =>
      counted.push(counts),
    );
    expect(counted.at(-1)).toEqual([15, 15]);
    for (const probabilities of answers) {
      for (const [photo, label] of samples.labels.entries()) {
        expect(probabilities[photo * 3 + label]).toBeCloseTo(0.8);
      }
    }
  });
});

describe('summariseRepeats', () => {
  it('takes the mean over the repeats, of each class too', async () => {
    const [answers = []] = await crossValidate(samples, [oracle((photo) => photo < 6)], repeats);
    const { accuracy, interval, perClass, confusion, rocAuc } = summariseRepeats(answers, samples);
    expect(accuracy).toBeCloseTo(0.9);
    // 30 groups, not 60 photos: Wilson's interval of 27 in 30.
    expect(interval[0]).toBeCloseTo(0.744, 3);
    expect(interval[1]).toBeCloseTo(0.965, 3);
    expect(perClass.daisy).toMatchObject({ precision: 0.9, photos: 20 });
    expect(perClass.daisy?.recall).toBeCloseTo(0.9);
    expect(confusion[0]).toEqual([18, 2, 0]);
    expect(rocAuc).toBeGreaterThan(0.9);
  });
});

describe('pairedGain', () => {
  it('sees a gain beyond its interval where one contender is better on many photos', async () => {
    const contenders = [oracle(() => false), oracle((photo) => photo % 5 === 0)];
    const [better = [], worse = []] = await crossValidate(samples, contenders, repeats);
    const gain = pairedGain(better, worse, samples);
    expect(gain.accuracy.mean).toBeCloseTo(0.2);
    expect(gain.accuracy.interval[0]).toBeGreaterThan(0.05);
    expect(gain.accuracy.interval[1]).toBeLessThan(0.35);
    expect(gain.logLoss.mean).toBeCloseTo(0.2 * Math.log(8));
    expect([gain.won, gain.lost]).toEqual([12, 0]);
    expect(pairedGain(worse, better, samples).accuracy.mean).toBeCloseTo(-0.2);
  });

  it('sees none where each is better on a photo', async () => {
    const contenders = [oracle((photo) => photo === 0), oracle((photo) => photo === 7)];
    const [one = [], other = []] = await crossValidate(samples, contenders, repeats);
    const { accuracy } = pairedGain(one, other, samples);
    expect(accuracy.mean).toBeCloseTo(0);
    expect(accuracy.interval[0]).toBeLessThan(0);
    expect(accuracy.interval[1]).toBeGreaterThan(0);
  });

  it('leaves open that they differ on other photos, where they are right on the same', async () => {
    const contenders = [oracle(() => false), oracle(() => false)];
    const [one = [], other = []] = await crossValidate(samples, contenders, repeats);
    const { accuracy } = pairedGain(one, other, samples);
    const different = new Set(samples.groups).size;
    const most = wilsonInterval(0, different)[1];
    expect(accuracy).toEqual({ mean: 0, interval: [-most, most] });
    expect(most).toBeGreaterThan(1 / different);
  });

  it('counts the photos of a group as one', async () => {
    const alone = { ...samples, groups: [...samples.labels.keys()].map(String) };
    const contenders = [oracle(() => false), oracle((photo) => photo < 6)];
    const [better = [], worse = []] = await crossValidate(alone, contenders, repeats);
    const spread = ({ interval: [low, high] }: { interval: [number, number] }) => high - low;
    expect(spread(pairedGain(better, worse, samples).accuracy)).toBeGreaterThan(
      spread(pairedGain(better, worse, alone).accuracy),
    );
  });
});
