import sharp from 'sharp';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from './classical.ts';
import { trainHead } from './classifier.ts';
import { decodePhoto } from './decode.ts';
import { type DrawnClass, drawPhoto } from './drawn.ts';
import { detectDrift, FAMILIARITY, type ObservedPhoto } from './drift.ts';
import { familiarityOf, learnFamiliarity } from './familiarity.ts';
import { applyHead } from './head.ts';
import { type ImageStatistics, measureStatistics } from './quality.ts';
import { type Random, seededRandom, shuffled } from './random.ts';
import { sketchFeatures } from './sketch.ts';

/** What may become of photos after a model was trained. */
export const shifts = ['none', 'darker', 'blurred', 'class mix', 'new object'] as const;
export type Shift = (typeof shifts)[number];

export interface SimulationOptions {
  /** Photos a model is trained on, which are its reference too. */
  training: number;
  window: number;
  /** Models, each with one window of every kind. */
  models: number;
  /** Chance of a false alarm that a look is given. */
  level: number;
  seed: number;
}

/** In how many windows drift was told. */
export type SimulatedAlarms = Record<Shift, { windows: number; alarms: number }>;

const classes: readonly DrawnClass[] = ['dandelion', 'grass'];
/** Predict looks at every fourth pixel of every fourth row, preprocess at all. */
const STRIDE_OF_PREDICT = 4;
const STRANGERS: readonly DrawnClass[] = ['daisy', 'tulip', 'clover'];
/** Share of a window that changes class, and that shows what no class is. */
const MIX_OF_FIRST_CLASS = 0.8;
const SHARE_OF_STRANGERS = 0.3;
/** Photos that a model and its window are drawn from, as a multiple of what they take. */
const SPARE = 6;
const ACCEPTANCE = 0.95;

/** A photo as it was measured. */
interface MeasuredPhoto {
  label: DrawnClass;
  /** As preprocess and as predict measure it. */
  statistics: { whole: ImageStatistics; coarse: ImageStatistics };
  features: Float32Array;
}

type Photos = readonly MeasuredPhoto[];
type Pools = Record<'day' | 'dark' | 'blurred' | 'strange', Photos>;

/**
 * Trains models on drawn photos and shows each windows of photos it has not seen, unchanged and changed: how often drift
 * is told is the rate of false alarms, and the power. References are made as train makes them, windows measured as
 * predict measures them.
 *
 * Each window has a model and a reference of its own. Windows that are held against one reference are told alike: where it
 * happens to lie aside, all of them are alarms. Twenty models with twenty windows each say little more than twenty windows.
 */
export async function simulateDrift(options: SimulationOptions): Promise<SimulatedAlarms> {
  const { level, models, seed, training, window } = options;
  const alarms = Object.fromEntries(
    shifts.map((shift) => [shift, { windows: 0, alarms: 0 }]),
  ) as SimulatedAlarms;
  const random = seededRandom(seed);
  const pools = await drawPools(options);
  for (let model = 0; model < models; model += 1) {
    // Shared out anew each time: without change a window is as good as another part of the training.
    const dealt = { ...pools, day: shuffled(pools.day, random) };
    const trained = await trainOn(dealt.day.slice(0, training), seed);
    const unseen = { ...dealt, day: dealt.day.slice(training) };
    for (const shift of shifts) {
      const shown = trained.judge(drawWindow(unseen, shift, window, random));
      const { drifted } = detectDrift(trained.reference, shown, { level, seed: model });
      alarms[shift].windows += 1;
      alarms[shift].alarms += drifted ? 1 : 0;
    }
  }
  return alarms;
}

async function trainOn(photos: Photos, seed: number) {
  const { dimension } = CLASSICAL_EXTRACTOR;
  const features = featuresOf(photos);
  const labels = Int32Array.from(photos, ({ label }) => classes.indexOf(label));
  let heldOut: Float32Array = new Float32Array();
  const onHeldOut = (probabilities: Float32Array) => {
    heldOut = probabilities;
  };
  const head = await trainHead({ features, labels, dimension, classes, seed }, { onHeldOut });
  const none = { features: new Float32Array(), labels: new Int32Array() };
  const shape = { classes: classes.length, dimension };
  const known = learnFamiliarity({ features, labels }, none, shape, ACCEPTANCE);
  return {
    reference: observed(photos, 'whole', heldOut, known.heldOut.training),
    judge(shown: Photos): ObservedPhoto[] {
      const theirs = featuresOf(shown);
      const familiarity = familiarityOf(known.directions, theirs, shown.length);
      return observed(shown, 'coarse', applyHead(head, theirs, shown.length), familiarity);
    },
  };
}

function featuresOf(photos: Photos): Float32Array {
  return Float32Array.from(photos.flatMap(({ features }) => [...features]));
}

async function drawPools({ training, window, seed }: SimulationOptions): Promise<Pools> {
  // Apart from each other, so that no photo is drawn twice.
  const firstSeed = seed * 1_000_000;
  const altered = (alter: Alter) => measurePhotos(classes, 2 * window, firstSeed + 500_000, alter);
  return {
    day: await measurePhotos(classes, SPARE * (training + window), firstSeed),
    dark: await altered((bytes) => sharp(bytes).modulate({ brightness: 0.6 }).jpeg().toBuffer()),
    blurred: await altered((bytes) => sharp(bytes).blur(1.5).jpeg().toBuffer()),
    strange: await measurePhotos(STRANGERS, 2 * window, firstSeed + 700_000),
  };
}

type Alter = (bytes: Buffer) => Promise<Buffer>;

/** Draws and measures photos, the classes in turn. */
async function measurePhotos(
  kind: readonly DrawnClass[],
  count: number,
  firstSeed: number,
  alter: Alter = async (bytes) => bytes,
): Promise<MeasuredPhoto[]> {
  const photos: MeasuredPhoto[] = [];
  for (let index = 0; index < count; index += 1) {
    const label = kind[index % kind.length] ?? 'grass';
    const photo = await decodePhoto(await alter(await drawPhoto(label, firstSeed + index)));
    const statistics = {
      whole: measureStatistics(photo),
      coarse: measureStatistics(photo, STRIDE_OF_PREDICT),
    };
    photos.push({ label, statistics, features: classicalFeatures(photo.pixels, photo.size) });
  }
  return photos;
}

function observed(
  photos: Photos,
  measure: keyof MeasuredPhoto['statistics'],
  probabilities: Float32Array,
  familiarity: Float32Array,
): ObservedPhoto[] {
  return photos.map(({ statistics, features }, row) => {
    const scores = probabilities.subarray(row * classes.length, (row + 1) * classes.length);
    const confidence = Math.max(...scores);
    return {
      statistics: { ...statistics[measure], [FAMILIARITY]: familiarity[row] ?? 0 },
      label: classes[scores.indexOf(confidence)] ?? '',
      confidence,
      sketch: [...sketchFeatures(features)],
    };
  });
}

function drawWindow(pools: Pools, shift: Shift, size: number, random: Random): MeasuredPhoto[] {
  const some = (photos: Photos, count: number) => shuffled(photos, random).slice(0, count);
  switch (shift) {
    case 'none':
      return some(pools.day, size);
    case 'darker':
      return some(pools.dark, size);
    case 'blurred':
      return some(pools.blurred, size);
    case 'class mix': {
      const ofFirst = pools.day.filter(({ label }) => label === classes[0]);
      const others = pools.day.filter(({ label }) => label !== classes[0]);
      const firsts = Math.round(size * MIX_OF_FIRST_CLASS);
      return [...some(ofFirst, firsts), ...some(others, size - firsts)];
    }
    case 'new object': {
      const strangers = Math.round(size * SHARE_OF_STRANGERS);
      return [...some(pools.day, size - strangers), ...some(pools.strange, strangers)];
    }
  }
}
