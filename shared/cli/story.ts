/**
 * `npm run story`: a model is trained and serves, its photos change, drift is seen, a training starts by itself, and
 * the next model takes over. All on this machine, from drawn photos; the times printed are those it took.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DandelionError, toDandelionError } from '../errors.ts';
import { type Platform, startPlatform } from '../local/platform.ts';
import { percent } from '../percent.ts';
import { type DriftCheck, listDriftChecks } from '../stores/drift-checks.ts';
import { readChampion } from '../stores/models.ts';
import { readWords, wholeNumber } from './command-line.ts';
import { exitCodeOf, type Findings } from './report.ts';
import { runPipeline } from './run-pipeline.ts';
import { prepareSource } from './source.ts';
import { reviewPhotos } from './story-review.ts';
import { type AnsweredPhoto, accuracyOf, openPhotoStream, type PhotoStream } from './story-stream.ts';

const usage = `Trains a model, serves photos, darkens and blurs them, and waits for the platform to notice and to mend itself.

  npm run story -- --photos N    photos that are served, half of them before the change (default 2000)
                   --window N    photos of a check for drift (default 200)
                   --labels N    photos of the dusk that a person labels (default 120)
                   --seed N      draws the photos (default 1)

Exit code: 0 no false alarm, drift seen, a model trained and serving; 1 otherwise, 2 bad input.
`;

const flags = {
  photos: { type: 'string', default: '2000' },
  window: { type: 'string', default: '200' },
  labels: { type: 'string', default: '120' },
  seed: { type: 'string', default: '1' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

interface StoryOptions {
  photos: number;
  window: number;
  labels: number;
  seed: number;
}

/** Photos between two looks at what monitor found. */
const STEP = 50;
/** The prediction log is sent every half second; a check takes less. */
const SETTLE_MS = 1500;
const TRAINING_WITHIN_MS = 600_000;

/** @returns the exit code */
async function main(words: string[]): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-story-'));
  try {
    const options = readOptions(words);
    if (options === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    return await stage(options, folder);
  } catch (error) {
    process.stderr.write(`${toDandelionError(error).message}\n`);
    if (!(error instanceof DandelionError)) process.stderr.write(`${(error as Error).stack}\n`);
    return exitCodeOf(error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Brings the platform up and tells the story on it. */
async function stage(options: StoryOptions, folder: string): Promise<number> {
  const tell = createTimeline();
  const source = await prepareSource({ kind: 'sample' }, folder, tell);
  const platform = await startPlatform({
    ...{ dataDir: folder, port: 0 },
    env: {
      ...source.env,
      DRIFT_WINDOW: String(options.window),
      DRIFT_RETRAIN_MIN_LABELS: String(Math.min(20, options.labels)),
      PREDICTION_LOG_FLUSH_MS: '500',
      // Told in minutes: each check as soon as there is a window for it.
      DRIFT_TIME_SHARE: '1',
      // One person labels them all at once.
      FEEDBACK_PER_MINUTE: '100000',
    },
  });
  try {
    tell(`the platform is up at ${platform.gatewayUrl}`);
    const failure = await runPipeline(
      platform,
      source,
      'story',
      {} satisfies Findings,
      new AbortController().signal,
    );
    if (failure !== undefined) throw failure;
    return await tellStory(platform, openPhotoStream(platform.gatewayUrl, options.seed), options, tell);
  } finally {
    await platform.stop();
  }
}

async function tellStory(
  platform: Platform,
  stream: PhotoStream,
  options: StoryOptions,
  tell: (sentence: string) => void,
): Promise<number> {
  const first = await championOf(platform);
  tell(`${first} is trained and serves`);
  const byDay = await askInSteps(stream, Math.floor(options.photos / 2), 'day');
  await sleep(SETTLE_MS);
  const falseAlarms = (await checksOf(platform)).filter(({ report }) => report.drifted);
  tell(
    `${byDay.length} photos by day: ${percent(accuracyOf(byDay))} right, ${(await checksOf(platform)).length} checks, ${falseAlarms.length} alarms`,
  );
  if (falseAlarms.length > 0) return end(tell, `false alarm: ${describeAlarm(falseAlarms[0])}`);

  tell('dusk falls: from now on photos are dark and blurred');
  const atDusk: AnsweredPhoto[] = [];
  const mostPhotos = options.photos - byDay.length;
  const alarm = await untilFound(atDusk, mostPhotos, stream, async () =>
    (await checksOf(platform)).find(({ report }) => report.drifted),
  );
  if (alarm === undefined) return end(tell, `${atDusk.length} photos at dusk and no alarm`);
  tell(`drift is seen after ${atDusk.length} photos at dusk: ${describeAlarm(alarm)}`);
  tell(`decision: ${alarm.decision?.action}, ${alarm.decision?.reason}`);

  const labelled = atDusk.slice(0, options.labels);
  labelled.push(...(await askInSteps(stream, options.labels - labelled.length, 'dusk')));
  tell(`a person labels ${await reviewPhotos(platform.gatewayUrl, labelled)} photos of the dusk`);
  const decided = await untilFound(atDusk, mostPhotos, stream, async () =>
    (await checksOf(platform)).find(({ decision }) => decision?.action === 'retrain'),
  );
  if (decided === undefined) return end(tell, 'no training was asked for');
  tell(`a training starts by itself: check ${decided.ordinal}, ${decided.decision?.reason}`);

  const next = await nextChampion(platform, first);
  if (next === undefined)
    return end(tell, `no model took over; ${JSON.stringify(await platform.pipeline.snapshot())}`);
  tell(`${next} is trained, was let through the gate, and serves`);
  const after = await askUntilAnsweredBy(stream, next, Math.max(STEP, mostPhotos - atDusk.length));
  tell(
    `photos at dusk: ${percent(accuracyOf(atDusk))} right by ${first}, ${percent(accuracyOf(after))} of ${after.length} by ${next}`,
  );
  return after.length > 0 ? 0 : end(tell, `predict did not go over to ${next}`);
}

/** Serves photos at dusk until something is found, or there are no more. */
async function untilFound<Found>(
  served: AnsweredPhoto[],
  most: number,
  stream: PhotoStream,
  find: () => Promise<Found | undefined>,
): Promise<Found | undefined> {
  for (;;) {
    const found = await find();
    if (found !== undefined || served.length >= most) return found;
    served.push(...(await stream.ask(STEP, 'dusk')));
    await sleep(SETTLE_MS);
  }
}

async function askInSteps(
  stream: PhotoStream,
  count: number,
  light: 'day' | 'dusk',
): Promise<AnsweredPhoto[]> {
  const answered: AnsweredPhoto[] = [];
  while (answered.length < count) {
    answered.push(...(await stream.ask(Math.min(STEP, count - answered.length), light)));
  }
  return answered;
}

/** Predict notices a new champion within its own time; what the old one answered until then does not count. */
async function askUntilAnsweredBy(
  stream: PhotoStream,
  version: string,
  count: number,
): Promise<AnsweredPhoto[]> {
  const answered = await askInSteps(stream, count, 'dusk');
  return answered.filter(({ answer }) => answer.model.version === version);
}

async function nextChampion(platform: Platform, before: string): Promise<string | undefined> {
  const deadline = performance.now() + TRAINING_WITHIN_MS;
  while (performance.now() < deadline) {
    const champion = await championOf(platform);
    if (champion !== before) return champion;
    await sleep(500);
  }
  return undefined;
}

async function championOf({ objects, modelName }: Platform): Promise<string> {
  const found = await readChampion(objects, modelName);
  if (found === undefined) throw new DandelionError('no-champion', 'No model serves.');
  return found.champion.version;
}

/** In order of time. */
async function checksOf({ database, modelName }: Platform): Promise<DriftCheck[]> {
  return (await listDriftChecks(database, modelName, 100)).reverse();
}

function describeAlarm(check: DriftCheck | undefined): string {
  const findings = check?.report.findings.filter(({ drifted }) => drifted) ?? [];
  return findings
    .map(
      ({ feature, effect, pValue }) =>
        `${feature} (effect ${effect.toFixed(2)}, p ${pValue.toExponential(0)})`,
    )
    .join(', ');
}

function end(tell: (sentence: string) => void, why: string): number {
  tell(`the story breaks off: ${why}`);
  return 1;
}

/** Prints sentences with the time since the start. */
function createTimeline(): (sentence: string) => void {
  const startedAt = performance.now();
  return (sentence) => {
    const seconds = (performance.now() - startedAt) / 1000;
    process.stdout.write(`${seconds.toFixed(1).padStart(7)} s  ${sentence}\n`);
  };
}

function readOptions(words: string[]): StoryOptions | 'help' {
  const given = readWords({ args: words, options: flags, allowPositionals: false }).values;
  if (given.help) return 'help';
  return {
    photos: wholeNumber('photos', given.photos, 400),
    window: wholeNumber('window', given.window, 50),
    labels: wholeNumber('labels', given.labels, 1),
    seed: wholeNumber('seed', given.seed, 0),
  };
}

process.exitCode = await main(process.argv.slice(2));
