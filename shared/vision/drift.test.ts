import { describe, expect, it } from 'vitest';
import { detectDrift, levelOfCheck, type ObservedPhoto } from './drift.ts';
import { normal, type Random, seededRandom } from './random.ts';

interface Change {
  brightness?: number;
  dandelions?: number;
  confidence?: number;
  sketch?: number;
}

function photos(random: Random, count: number, change: Change = {}): ObservedPhoto[] {
  return Array.from({ length: count }, () => ({
    statistics: { brightness: normal(random) + (change.brightness ?? 0), shortSide: 224 },
    label: random() < (change.dandelions ?? 0.5) ? 'dandelion' : 'grass',
    confidence: 0.5 + 0.5 * random() ** (change.confidence ?? 0.3),
    sketch: Array.from({ length: 8 }, () => normal(random) + (change.sketch ?? 0)),
  }));
}

const drifted = (reference: ObservedPhoto[], window: ObservedPhoto[]) =>
  detectDrift(reference, window, { level: 0.01, seed: 1 })
    .findings.filter((finding) => finding.drifted)
    .map(({ feature }) => feature);

describe('detectDrift', () => {
  const random = seededRandom(3);
  const reference = photos(random, 300);

  it.each([
    [{ brightness: 1 }, 'brightness'],
    [{ dandelions: 0.9 }, 'label'],
    [{ confidence: 2 }, 'confidence'],
    [{ sketch: 0.7 }, 'embedding'],
  ])('names what has changed: %o', (change, feature) => {
    expect(drifted(reference, photos(random, 200, change))).toEqual([feature]);
  });

  it.each([
    [20, true],
    [28, false],
  ])('holds how often the model was right against its test split: %i of 30', (right, fell) => {
    const performance = { tested: { right: 45, total: 47 }, reviewed: { right, total: 30 } };
    const report = detectDrift(reference, photos(random, 200), { level: 0.05, seed: 1, performance });
    expect(report.findings.find(({ kind }) => kind === 'performance')).toMatchObject({
      ...{ feature: 'accuracy', test: 'fisher-exact', reference: 45 / 47, window: right / 30 },
      drifted: fell,
    });
  });

  it('keeps its level over all its tests together', () => {
    const looks = 400;
    const alarms = Array.from({ length: looks }, () =>
      detectDrift(photos(random, 120), photos(random, 100), { level: 0.05, seed: 1 }),
    ).filter((report) => report.findings.some(({ pValue }) => pValue <= 0.05 / report.findings.length));
    // Three standard errors above 5 %.
    expect(alarms.length / looks).toBeLessThan(0.083);
  });

  it('takes a difference that many photos prove but nobody would see for none', () => {
    const one = photos(random, 6000);
    const other = photos(random, 6000, { brightness: 0.12 });
    const { drifted: isDrifted, findings } = detectDrift(one, other, { level: 0.01, seed: 1 });
    expect(findings[0]).toMatchObject({ feature: 'brightness', drifted: false });
    expect(findings[0]?.pValue).toBeLessThan(1e-4);
    expect(isDrifted).toBe(false);
  });

  it('says what it compared: medians, shares, sizes, and photos', () => {
    const report = detectDrift(reference, photos(random, 200, { brightness: 2 }), { level: 0.01, seed: 1 });
    expect(report).toMatchObject({ drifted: true, level: 0.01, photos: { reference: 300, window: 200 } });
    const [first] = report.findings;
    expect(first).toMatchObject({ kind: 'input', feature: 'brightness', test: 'kolmogorov-smirnov' });
    expect(first?.window).toBeCloseTo(2, 0);
    expect(first?.psi).toBeGreaterThan(1);
    const mix = report.findings.find(({ kind }) => kind === 'prediction');
    expect(mix?.reference).toMatchObject({
      dandelion: expect.closeTo(0.5, 1),
      grass: expect.closeTo(0.5, 1),
    });
  });

  it('goes without what older records do not carry', () => {
    const old = photos(random, 200, { brightness: 2 }).map((photo) => ({ ...photo, sketch: null }));
    const { findings } = detectDrift(reference, old, { level: 0.01, seed: 1 });
    expect(findings.map(({ kind }) => kind)).not.toContain('embedding');
    expect(drifted(reference, old)).toEqual(['brightness']);
  });

  it('answers the same for the same photos', () => {
    const window = photos(random, 200);
    const look = () => detectDrift(reference, window, { level: 0.01, seed: 9 });
    expect(look()).toEqual(look());
  });
});

describe('levelOfCheck', () => {
  it('never spends more than the budget, however many checks there are', () => {
    const spent = Array.from({ length: 100_000 }, (_, index) => levelOfCheck(0.05, index + 1));
    expect(spent.reduce((sum, level) => sum + level, 0)).toBeLessThan(0.05);
    expect(spent[0]).toBe(0.025);
  });
});

it('tells the shares of classes by any name a class may have', () => {
  const named = (label: string, share: number) =>
    photos(seededRandom(5), 100, { dandelions: share }).map((photo) => ({
      ...photo,
      label: photo.label === 'dandelion' ? label : 'toString',
    }));
  const { findings } = detectDrift(named('constructor', 0.5), named('constructor', 1), {
    level: 0.01,
    seed: 1,
  });
  expect(findings.find(({ feature }) => feature === 'label')?.window).toEqual({
    constructor: expect.closeTo(1),
  });
});
