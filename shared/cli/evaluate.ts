import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { extractorSettings, readConfig, unknownSettings } from '../config.ts';
import { toDandelionError } from '../errors.ts';
import { type Extractor, openExtractor } from '../stores/extractor.ts';
import { openObjects } from '../stores/objects.ts';
import { corruptions } from '../vision/corruptions.ts';
import { crossValidate, pairedGain, summariseRepeats } from '../vision/cross-validation.ts';
import { answering, plainHead, trainedAsInPipeline } from './evaluate/contenders.ts';
import { compareCorrupted } from './evaluate/corrupted.ts';
import { diagnose, doctorPage } from './evaluate/doctor.ts';
import { type EvaluateOptions, readOptions, usage } from './evaluate/options.ts';
import { type EmbeddedFile, embedFolder } from './evaluate/photos.ts';
import { type EvaluationReport, formatReport } from './evaluate/report.ts';
import { embedOthers, measureUnknowns } from './evaluate/unknowns.ts';
import { exitCodeOf } from './report.ts';

/** `npm run evaluate`. @returns the exit code: 0 when everything was measured, whatever the figures are */
async function main(words: readonly string[]): Promise<number> {
  try {
    const options = readOptions(words);
    if (options === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    const report = await evaluate(options);
    process.stdout.write(`\n${formatReport(report)}\n`);
    await writeFiles(options, report);
    return 0;
  } catch (thrown) {
    process.stderr.write(`\n${toDandelionError(thrown).message}\n`);
    return exitCodeOf(thrown);
  }
}

async function evaluate(options: EvaluateOptions): Promise<EvaluationReport> {
  const { images: folder, folds, seeds } = options;
  const { UNKNOWN_ACCEPTANCE: acceptance } = readConfig(unknownSettings);
  const extractor = await openBackbone(options);
  const corrupted = options.corruptions ? corruptions : [];
  const embedded = await embedFolder(folder, extractor, countTo('photos embedded'), corrupted);
  const { photos, samples } = embedded;
  const others =
    options.others === undefined ? undefined : await embedOthers(options.others, extractor.engine);
  await extractor.engine.close();
  const learners = [trainedAsInPipeline(photos, samples), plainHead(photos, samples)];
  const views: ((photo: EmbeddedFile) => Float32Array)[] = [
    ({ vector }) => vector,
    ...corrupted.map((name) => (photo: EmbeddedFile) => photo.corrupted[name] ?? photo.vector),
  ];
  const contenders = views.flatMap((view) => learners.map((learner) => answering(learner, photos, view)));
  const answers = await crossValidate(samples, contenders, { folds, seeds }, countTo('folds'));
  const [ofPipeline = [], ofPlainHead = [], ...ofCorrupted] = answers;
  const classes = samples.classes.map(
    (label) => [label, photos.filter((photo) => photo.label === label).length] as const,
  );
  const different = new Set(samples.groups).size;
  return {
    schemaVersion: 1,
    images: { folder, used: photos.length, different, classes: Object.fromEntries(classes) },
    ...{ extractor: extractor.id, folds, seeds },
    pipeline: summariseRepeats(ofPipeline, samples),
    plainHead: summariseRepeats(ofPlainHead, samples),
    gain: pairedGain(ofPipeline, ofPlainHead, samples),
    corruptions: corrupted.length === 0 ? null : compareCorrupted(corrupted, ofCorrupted, samples),
    unknowns:
      others === undefined ? null : measureUnknowns(photos, samples, others, { folds, seeds, acceptance }),
    doctor: diagnose(embedded, ofPipeline),
  };
}

function openBackbone({ dataDir }: EvaluateOptions): Promise<Extractor> {
  const objects = openObjects({ OBJECTS_DIR: join(dataDir, 'objects') });
  const warn = (_fields: unknown, sentence?: string) => void process.stderr.write(`${sentence ?? _fields}\n`);
  return openExtractor(objects, readConfig(extractorSettings), { log: { info: () => {}, warn } });
}

/** Counts on one line of the terminal; says nothing into a file. */
function countTo(what: string): (done: number, total: number) => void {
  return (done, total) => {
    if (!process.stderr.isTTY) return;
    process.stderr.write(`\r${done} of ${total} ${what}${done === total ? '\n' : ''}`);
  };
}

async function writeFiles(
  { images, json, doctor }: EvaluateOptions,
  report: EvaluationReport,
): Promise<void> {
  if (json !== undefined) await write(json, `${JSON.stringify(report, null, 2)}\n`, 'Everything is');
  if (doctor !== undefined)
    await write(doctor, await doctorPage(images, report.doctor), 'What to look at is');
}

async function write(file: string, content: string | Uint8Array, what: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, content);
  process.stdout.write(`\n${what} in ${file}.\n`);
}

process.exitCode = await main(process.argv.slice(2));
