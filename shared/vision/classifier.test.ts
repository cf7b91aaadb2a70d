import { describe, expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import { applyHead, parseHead, serialiseHead, type TrainingData, trainHead } from './classifier.ts';
import { evaluateClassifier } from './metrics.ts';
import { normal, seededRandom } from './random.ts';
import { loadTensorFlow } from './tensorflow.ts';

const DIMENSION = 40;

/** Photos of overlapping classes: each shifts four features; scales and offsets differ from feature to feature. */
function sampleData(perClass: number[], seed: number): TrainingData {
  const random = seededRandom(seed);
  const labels = Int32Array.from(perClass.flatMap((count, label) => new Array<number>(count).fill(label)));
  const draw = (label: number, feature: number) => {
    const shift = Math.floor(feature / 4) === label ? 1.2 : 0;
    return (normal(random) + shift) * (1 + (feature % 7)) + feature;
  };
  const sample = () =>
    Float32Array.from({ length: labels.length * DIMENSION }, (_, i) =>
      draw(labels[Math.floor(i / DIMENSION)] ?? 0, i % DIMENSION),
    );
  return {
    features: sample(),
    augmentedFeatures: sample(),
    labels,
    dimension: DIMENSION,
    classes: perClass.map((_, label) => `class ${label}`),
    seed,
  };
}

function accuracyOn(data: TrainingData, head: Parameters<typeof applyHead>[0]): number {
  const probabilities = applyHead(head, data.features, data.labels.length);
  return evaluateClassifier(probabilities, data.labels, data.classes, { seed: 1 }).summary.accuracy;
}

describe('trainHead', () => {
  it('learns two classes and says what to expect of photos it has not seen', async () => {
    const head = await trainHead(sampleData([60, 60], 1));
    const accuracy = accuracyOn(sampleData([500, 500], 2), head);
    expect(accuracy).toBeGreaterThan(0.9);
    expect(Math.abs(head.crossValidation.accuracy - accuracy)).toBeLessThan(0.07);
    expect(head.crossValidation.folds).toBe(5);
    expect(head.crossValidation.table.map(({ regularisation }) => regularisation)).toContain(
      head.regularisation,
    );
  });

  it('learns more classes, rare ones too', async () => {
    const head = await trainHead(sampleData([80, 60, 20], 3));
    const probabilities = applyHead(head, sampleData([300, 300, 300], 4).features, 900);
    const labels = sampleData([300, 300, 300], 4).labels;
    const { summary } = evaluateClassifier(probabilities, labels, head.classes, { seed: 1 });
    for (const { recall } of Object.values(summary.perClass)) expect(recall).toBeGreaterThan(0.8);
  });

  it('gives probabilities that mean what they say', async () => {
    const head = await trainHead(sampleData([80, 80], 5));
    const fresh = sampleData([1000, 1000], 6);
    const probabilities = applyHead(head, fresh.features, 2000);
    expect(
      evaluateClassifier(probabilities, fresh.labels, fresh.classes, { seed: 1 }).summary.ece,
    ).toBeLessThan(0.05);
  });

  it('gives the same head to the bit for the same data and seed', async () => {
    const [first, second] = [
      await trainHead(sampleData([40, 40], 7)),
      await trainHead(sampleData([40, 40], 7)),
    ];
    expect(second).toEqual(first);
    expect(Buffer.from(second.weights.buffer)).toEqual(Buffer.from(first.weights.buffer));
  });

  it('leaves no tensor behind, not even when it is stopped', async () => {
    const { tf } = await loadTensorFlow();
    const before = tf.memory().numTensors;
    await trainHead(sampleData([30, 30], 8));
    expect(tf.memory().numTensors).toBe(before);
    const stop = new AbortController();
    const training = trainHead(sampleData([30, 30], 8), {
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    await expect(training).rejects.toThrow();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('ends with the reason it was stopped for, and lets others run meanwhile', async () => {
    const stop = new AbortController();
    const reason = new DandelionError('cancelled', 'Someone stopped it.');
    // A timer can only fire because the training serves the event loop.
    setTimeout(() => stop.abort(reason), 1);
    await expect(trainHead(sampleData([200, 200], 9), { signal: stop.signal })).rejects.toBe(reason);
  });

  it('reports every fit with its loss, and how the loss of the last one falls', async () => {
    const reports: [number, number, number][] = [];
    const iterations: { step: number; loss: number }[] = [];
    const head = await trainHead(sampleData([30, 30], 10), {
      onProgress: (...report) => reports.push(report),
      onIteration: (step, loss) => iterations.push({ step, loss }),
    });
    expect(iterations.length).toBeGreaterThan(3);
    expect(iterations).toEqual(head.history.slice(0, iterations.length));
    expect(reports.at(-1)?.[2]).toBe(head.history.at(-1)?.loss);
    const heldOut = reports.slice(0, -1).map(([, , loss]) => loss);
    expect(Math.min(...heldOut)).toBeGreaterThan(0);
    expect(new Set(heldOut).size).toBe(heldOut.length);
    expect(reports.length).toBe(reports[0]?.[1]);
    expect(reports.at(-1)?.[0]).toBe(reports.at(-1)?.[1]);
    const losses = head.history.map(({ loss }) => loss);
    expect(losses[0]).toBeCloseTo(Math.log(2), 5);
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
  });

  it('is not fooled by near-duplicates: a copy never stands on both sides of a fold', async () => {
    // Labels are drawn by lot, so nothing can be learnt; copies on both sides would make it look learnable.
    const random = seededRandom(12);
    const originals = Array.from({ length: 40 }, () =>
      Array.from({ length: DIMENSION }, () => normal(random)),
    );
    const features = Float32Array.from(originals.flatMap((vector) => [...vector, ...vector, ...vector]));
    const labels = Int32Array.from({ length: 120 }, (_, i) => Math.floor(i / 3) % 2);
    const groups = Array.from(labels, (_, i) => `photo ${Math.floor(i / 3)}`);
    const data = { features, labels, dimension: DIMENSION, classes: ['a', 'b'], seed: 1 };
    const honest = await trainHead({ ...data, groups });
    const fooled = await trainHead(data);
    expect(honest.crossValidation.accuracy).toBeLessThan(0.75);
    expect(fooled.crossValidation.accuracy).toBeGreaterThan(0.9);
  });

  it('bears constant features', async () => {
    const data = sampleData([30, 30], 13);
    for (let i = 0; i < data.features.length; i += DIMENSION) data.features[i] = 5;
    const head = await trainHead({ ...data, augmentedFeatures: undefined });
    expect([...head.weights].every(Number.isFinite)).toBe(true);
    expect(accuracyOn(data, head)).toBeGreaterThan(0.9);
  });

  it('names data it cannot learn from', async () => {
    const data = sampleData([10, 10], 14);
    const code = (name: string) => expect.objectContaining({ code: name });
    await expect(trainHead({ ...data, classes: ['only'] })).rejects.toEqual(code('too-few-classes'));
    await expect(trainHead({ ...data, classes: ['class 0', 'class 1', 'none'] })).rejects.toThrow(
      'Class "none"',
    );
    const oneGroup = Array.from(data.labels, (label, i) => (label === 0 ? 'same' : `own ${i}`));
    await expect(trainHead({ ...data, groups: oneGroup })).rejects.toThrow('hold some out: class 0;');
    await expect(trainHead({ ...data, features: new Float32Array(7) })).rejects.toEqual(code('internal'));
  });

  it('names the photo whose features are no numbers, and photos that are all the same', async () => {
    const data = sampleData([10, 10], 16);
    const bad = (part: RegExp) =>
      expect.objectContaining({ code: 'bad-data', message: expect.stringMatching(part) });
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const features = data.features.with(12 * DIMENSION + 3, value);
      await expect(trainHead({ ...data, features })).rejects.toEqual(bad(/Feature 3 of .* 12 .*"class 1"/));
      const augmentedFeatures = features;
      await expect(trainHead({ ...data, augmentedFeatures })).rejects.toEqual(bad(/Feature 3 of/));
    }
    const features = Float32Array.from(data.features, (_, i) => i % DIMENSION);
    await expect(trainHead({ ...data, features })).rejects.toEqual(bad(/All 20 .* class 0 from class 1/));
  });
});

describe('head files', () => {
  it('come back to the bit', async () => {
    const head = await trainHead(sampleData([20, 20], 15));
    expect(parseHead(serialiseHead(head))).toEqual(head);
  });

  it('that are damaged are named broken', async () => {
    const head = await trainHead(sampleData([20, 20], 15));
    const broken = expect.objectContaining({ code: 'model-broken' });
    expect(() => parseHead(Buffer.from('{}'))).toThrow(broken);
    expect(() => parseHead(serialiseHead(head).subarray(0, 100))).toThrow(broken);
    expect(() => parseHead(serialiseHead({ ...head, bias: Float32Array.of(1) }))).toThrow(broken);
    const later = Buffer.from(serialiseHead(head))
      .toString()
      .replace('dandelion-head-v1', 'dandelion-head-v2');
    expect(() => parseHead(Buffer.from(later))).toThrow('dandelion-head-v2');
    expect(() => parseHead(Buffer.from(later))).toThrow(broken);
  });

  it('refuse features of another length', async () => {
    const head = await trainHead(sampleData([20, 20], 15));
    expect(() => applyHead(head, new Float32Array(7), 1)).toThrow('takes 40 features a photo');
  });
});
