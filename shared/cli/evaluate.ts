import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { toDandelionError } from '../errors.ts';
import { type Extractor, openExtractor } from '../stores/extractor.ts';
import { openObjects } from '../stores/objects.ts';
import { crossValidate, pairedGain, summariseRepeats } from '../vision/cross-validation.ts';
import { plainHead, trainedAsInPipeline } from './evaluate/contenders.ts';
import { type EvaluateOptions, readOptions, usage } from './evaluate/options.ts';
import { embedFolder } from './evaluate/photos.ts';
import { type EvaluationReport, formatReport } from './evaluate/report.ts';
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
    await writeReport(options, report);
    return 0;
  } catch (thrown) {
    process.stderr.write(`\n${toDandelionError(thrown).message}\n`);
    return exitCodeOf(thrown);
  }
}

async function evaluate(options: EvaluateOptions): Promise<EvaluationReport> {
  const { images: folder, folds, seeds } = options;
  const extractor = await openBackbone(options);
  const { photos, rejected, samples } = await embedFolder(folder, extractor, countTo('photos embedded'));
  await extractor.engine.close();
  const contenders = [trainedAsInPipeline(photos, samples), plainHead(photos, samples)];
  const answers = await crossValidate(samples, contenders, { folds, seeds }, countTo('folds'));
  const [ofPipeline = [], ofPlainHead = []] = answers;
  const classes = samples.classes.map(
    (label) => [label, photos.filter((photo) => photo.label === label).length] as const,
  );
  const different = new Set(samples.groups).size;
  return {
    schemaVersion: 1,
    images: { folder, used: photos.length, different, classes: Object.fromEntries(classes), rejected },
    ...{ extractor: extractor.id, folds, seeds },
    pipeline: summariseRepeats(ofPipeline, samples),
    plainHead: summariseRepeats(ofPlainHead, samples),
    gain: pairedGain(ofPipeline, ofPlainHead, samples),
  };
}

function openBackbone({ dataDir }: EvaluateOptions): Promise<Extractor> {
  const objects = openObjects({ OBJECTS_DIR: join(dataDir, 'objects') });
  const warn = (_fields: unknown, sentence?: string) => void process.stderr.write(`${sentence ?? _fields}\n`);
  return openExtractor(objects, process.env.BACKBONE_URI, { log: { info: () => {}, warn } });
}

/** Counts on one line of the terminal; says nothing into a file. */
function countTo(what: string): (done: number, total: number) => void {
  return (done, total) => {
    if (!process.stderr.isTTY) return;
    process.stderr.write(`\r${done} of ${total} ${what}${done === total ? '\n' : ''}`);
  };
}

async function writeReport({ json }: EvaluateOptions, report: EvaluationReport): Promise<void> {
  if (json === undefined) return;
  await mkdir(dirname(json), { recursive: true });
  await writeFile(json, `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`\nEverything is in ${json}.\n`);
}

process.exitCode = await main(process.argv.slice(2));
