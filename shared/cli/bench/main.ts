import { toDandelionError } from '../../errors.ts';
import { busyShare } from './busy.ts';
import { measureColdStart } from './cold-start.ts';
import { measureDatabase } from './database.ts';
import { measureEngines } from './engines.ts';
import { measureEvents } from './events.ts';
import { measureMemory } from './memory.ts';
import { measureObjects } from './objects.ts';
import { type BenchName, type BenchOptions, readOptions, usage } from './options.ts';
import { measurePipeline } from './pipeline.ts';
import { measurePredict } from './predict.ts';
import { measurePredictionLog } from './prediction-log.ts';
import { describeConditions, formatConditions, writeFigures } from './report.ts';
import { prepareStage, type Stage } from './stage.ts';
import { measureSteps } from './steps.ts';
import { formatTable, type Row } from './table.ts';
import { measureTelemetry } from './telemetry.ts';

type Names = ReadonlySet<BenchName>;

/** What is measured together, under the names that ask for it. */
const measurements: { names: BenchName[]; measure(stage: Stage, wanted: Names): Promise<Row[]> }[] = [
  { names: ['predict'], measure: measurePredict },
  { names: ['prediction-log'], measure: measurePredictionLog },
  { names: ['telemetry'], measure: measureTelemetry },
  { names: ['ingest', 'preprocess', 'train', 'memory'], measure: measurePipeline },
  { names: ['cold-start'], measure: measureColdStart },
  { names: ['engines'], measure: measureEngines },
  { names: ['events'], measure: measureEvents },
  { names: ['steps'], measure: measureSteps },
  { names: ['database'], measure: measureDatabase },
  { names: ['objects'], measure: measureObjects },
  { names: ['memory'], measure: measureMemory },
];

function say(sentence: string): void {
  process.stdout.write(`${sentence}\n`);
}

/** `npm run bench`. @returns the exit code: 0 when everything was measured, whatever the figures are */
async function main(words: readonly string[]): Promise<number> {
  try {
    const options = readOptions(words);
    if (options === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    return await bench(options);
  } catch (thrown) {
    const error = toDandelionError(thrown);
    process.stderr.write(`\n${error.message}\n`);
    if (error !== thrown && thrown instanceof Error) process.stderr.write(`${thrown.stack}\n`);
    return error.code === 'bad-config' ? 2 : 1;
  }
}

async function bench(options: BenchOptions): Promise<number> {
  const busyWithOthers = await busyShare(2000);
  const stage = await prepareStage(options, say);
  try {
    const conditions = await describeConditions(stage, busyWithOthers);
    say(`\n${formatConditions(conditions)}`);
    const rows: Row[] = [];
    const failed: string[] = [];
    for (const { names, measure } of measurements) {
      const wanted = names.filter((name) => options.only.has(name));
      if (wanted.length === 0) continue;
      say(`\n${wanted.join(', ')} ...`);
      try {
        const measured = await measure(stage, options.only);
        rows.push(...measured);
        say(`\n${formatTable(measured)}`);
      } catch (thrown) {
        // One that fails does not take the figures of the others with it.
        failed.push(`${wanted.join(', ')}: ${toDandelionError(thrown).message}`);
        process.stderr.write(`\n${thrown instanceof Error ? thrown.stack : String(thrown)}\n`);
      }
    }
    await writeFigures(options.json, conditions, rows, failed);
    say(`\nThe figures are in ${options.json}.`);
    for (const fault of failed) process.stderr.write(`Not measured: ${fault}\n`);
    return failed.length === 0 ? 0 : 1;
  } finally {
    await stage.platform.stop();
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
process.exitCode = await main(process.argv.slice(2));
