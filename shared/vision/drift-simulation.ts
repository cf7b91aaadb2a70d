import sharp from 'sharp';
import { CLASSICAL_EXTRACTOR, classicalFeatures } from './classical.ts';
import { trainHead } from './classifier.ts';
import { decodePhoto } from './decode.ts';
import { type DrawnClass, drawPhoto } from './drawn.ts';
import { detectDrift, type ObservedPhoto } from './drift.ts';
import { applyHead, type TrainedHead } from './head.ts';
import { type ImageStatistics, measureStatistics } from './quality.ts';
import { type Random, seededRandom, shuffled } from './random.ts';
import { sketchFeatures } from './sketch.ts';

/** What may become of photos after a model was trained. */
export const shifts = ['none', 'darker', 'blurred', 'class mix', 'new object'] as const;
export type Shift = (typeof shifts)[number];

export interface SimulationOptions {
  /** Photos a model is trained on, which are its reference too. */
  training: number;
  /** Photos of each kind that windows are drawn from, without any twice in one window. */
  pool: number;
  window: number;
  /** Windows a kind and model. */
  rounds: number;
  models: number;
  /** Chance of a false alarm that a look is given. */
  level: number;
  seed: number;
}

/** Of how many windows drift was told. */
export type SimulatedAlarms = Record<Shift, { windows: number; alarms: number }>;

const classes: readonly DrawnClass[] = ['dandelion', 'grass'];
/** Predict looks at every fourth pixel of every fourth row, preprocess at all. */
const STRIDE_OF_PREDICT = 4;
const STRANGERS: readonly DrawnClass[] = ['daisy', 'tulip', 'clover'];
/** Share of a window that changes class, and that shows what no class is. */
const MIX_OF_FIRST_CLASS = 0.8;
const SHARE_OF_STRANGERS = 0.3;

/** A photo as it was measured. */
interface MeasuredPhoto {
  label: DrawnClass;
  statistics: ImageStatistics;
  features: Float32Array;
}

/**
 * Trains models on drawn photos and shows each windows of photos it has not seen, unchanged and changed: how often drift
 * is told is the rate of false alarms, and the power. References are made as train makes them, windows measured as
 * predict measures them.
 */
export async function simulateDrift(options: SimulationOptions): Promise<SimulatedAlarms> {
  const { level, models, rounds, seed } = options;
  const alarms = Object.fromEntries(
    shifts.map((shift) => [shift, { windows: 0, alarms: 0 }]),
  ) as SimulatedAlarms;
  const random = seededRandom(seed);
  for (let model = 0; model < models; model += 1) {
    // Apart from each other, so that no photo is drawn twice.
    const firstSeed = (seed * models + model) * 100_000;
    const { reference, head } = await trainOn(options, firstSeed);
    const pools = await measurePools(options, head, firstSeed + options.training);
    for (const shift of shifts) {
      for (let round = 0; round < rounds; round += 1) {
        const window = drawWindow(pools, shift, options.window, random);
        const { drifted } = detectDrift(reference, window, { level, seed: round });
        alarms[shift].windows += 1;
        alarms[shift].alarms += drifted ? 1 : 0;
      }
    }
  }
  return alarms;
}

/** With what it shows in truth. */
type SimulatedPhoto = ObservedPhoto & { truth: DrawnClass };
type Pools = Record<'day' | 'dark' | 'blurred' | 'strange', SimulatedPhoto[]>;

async function trainOn({ training, seed }: SimulationOptions, firstSeed: number) {
  const photos = await measurePhotos(classes, training, firstSeed, 1);
  const { dimension } = CLASSICAL_EXTRACTOR;
  const features = Float32Array.from(photos.flatMap((photo) => [...photo.features]));
  const labels = Int32Array.from(photos, ({ label }) => classes.indexOf(label));
  let heldOut: Float32Array = new Float32Array();
  const onHeldOut = (probabilities: Float32Array) => {
    heldOut = probabilities;
  };
  const head = await trainHead({ features, labels, dimension, classes, seed }, { onHeldOut });
  return { reference: observed(photos, heldOut), head };
}

async function measurePools(
  { pool }: SimulationOptions,
  head: TrainedHead,
  firstSeed: number,
): Promise<Pools> {
  const judged = async (kind: readonly DrawnClass[], alter?: Alter) => {
    const photos = await measurePhotos(kind, pool, firstSeed, STRIDE_OF_PREDICT, alter);
    const features = Float32Array.from(photos.flatMap((photo) => [...photo.features]));
    return observed(photos, applyHead(head, features, photos.length));
  };
  return {
    day: await judged(classes),
    dark: await judged(classes, (bytes) => sharp(bytes).modulate({ brightness: 0.6 }).jpeg().toBuffer()),
    blurred: await judged(classes, (bytes) => sharp(bytes).blur(1.5).jpeg().toBuffer()),
    strange: await judged(STRANGERS),
  };
}

type Alter = (bytes: Buffer) => Promise<Buffer>;

/** Draws and measures photos, the classes in turn. */
async function measurePhotos(
  kind: readonly DrawnClass[],
  count: number,
  firstSeed: number,
  stride: number,
  alter: Alter = async (bytes) => bytes,
): Promise<MeasuredPhoto[]> {
  const photos: MeasuredPhoto[] = [];
  for (let index = 0; index < count; index += 1) {
    const label = kind[index % kind.length] ?? 'grass';
    const photo = await decodePhoto(await alter(await drawPhoto(label, firstSeed + index)));
    const features = classicalFeatures(photo.pixels, photo.size);
    photos.push({ label, statistics: measureStatistics(photo, stride), features });
  }
  return photos;
}

function observed(photos: readonly MeasuredPhoto[], probabilities: Float32Array): SimulatedPhoto[] {
  return photos.map(({ label, statistics, features }, row) => {
    const scores = probabilities.subarray(row * classes.length, (row + 1) * classes.length);
    const confidence = Math.max(...scores);
    return {
      truth: label,
      statistics: { ...statistics },
      label: classes[scores.indexOf(confidence)] ?? '',
      confidence,
      sketch: [...sketchFeatures(features)],
    };
  });
}

function drawWindow(pools: Pools, shift: Shift, size: number, random: Random): ObservedPhoto[] {
  const some = (photos: readonly SimulatedPhoto[], count: number) => shuffled(photos, random).slice(0, count);
  switch (shift) {
    case 'none':
      return some(pools.day, size);
    case 'darker':
      return some(pools.dark, size);
    case 'blurred':
      return some(pools.blurred, size);
    case 'class mix': {
      const ofFirst = pools.day.filter((photo) => photo.truth === classes[0]);
      const others = pools.day.filter((photo) => photo.truth !== classes[0]);
      const firsts = Math.round(size * MIX_OF_FIRST_CLASS);
      return [...some(ofFirst, firsts), ...some(others, size - firsts)];
    }
    case 'new object': {
      const strangers = Math.round(size * SHARE_OF_STRANGERS);
      return [...some(pools.day, size - strangers), ...some(pools.strange, strangers)];
    }
  }
}
