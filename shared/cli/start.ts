import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { objectSettings, readConfig } from '../config.ts';
import { DandelionError, toDandelionError } from '../errors.ts';
import { makeDataDir } from '../local/data-folder.ts';
import { type Platform, startPlatform } from '../local/platform.ts';
import { readChampion, readEvaluation, readModel } from '../stores/models.ts';
import { isStoreTrouble, type ObjectStore, openObjects } from '../stores/objects.ts';
import { allowSources } from './allowed-sources.ts';
import { predictOnce } from './first-prediction.ts';
import { readOptions, reportPathIn, type StartOptions, usage } from './options.ts';
import {
  buildReport,
  checkReportPath,
  describeReport,
  exitCodeOf,
  type Findings,
  writeReport,
} from './report.ts';
import { runPipeline } from './run-pipeline.ts';
import { type PreparedSource, prepareSource } from './source.ts';

/** A terminal may deliver one Ctrl-C twice: to this process and through npm. */
const secondSignalAfterMs = 1500;
const packageManifest = z.object({ version: z.string() });

function say(sentence: string): void {
  process.stdout.write(`${sentence}\n`);
}

/** `npm start`. @returns the exit code */
async function main(words: string[]): Promise<number> {
  // Whoever read the output may leave; the work goes on.
  process.stdout.on('error', () => {});
  const stop = listenForStop();
  const findings: Findings = {};
  try {
    const options = await readOptions(words);
    if (options === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    return await start(options, findings, stop);
  } catch (thrown) {
    // Ctrl-C reaches the programs that were at work, too, and their end is what was thrown.
    const error = stop.aborted ? interruption() : toDandelionError(thrown);
    process.stderr.write(`\n${error.message}\n`);
    if (!stop.aborted && error !== thrown && thrown instanceof Error)
      process.stderr.write(`${thrown.stack}\n`);
    const json = reportPathIn(words);
    if (json !== undefined) {
      await writeReport(json, buildReport({ ...findings, error })).catch((fault: Error) => {
        if (fault.message !== error.message) process.stderr.write(`${fault.message}\n`);
      });
    }
    return exitCodeOf(error);
  }
}

/** Aborted by the first signal to stop; a later second one ends the process at once. */
function listenForStop(): AbortSignal {
  const stop = new AbortController();
  let firstAt: number | undefined;
  const onSignal = () => {
    if (firstAt !== undefined && Date.now() - firstAt > secondSignalAfterMs) process.exit(1);
    if (firstAt === undefined) say('\nStopping ...');
    firstAt ??= Date.now();
    stop.abort(interruption());
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  return stop.signal;
}

function interruption(): DandelionError {
  return new DandelionError(
    'cancelled',
    'Stopped before the model was ready; the next start goes on from here.',
  );
}

async function start(options: StartOptions, findings: Findings, stop: AbortSignal): Promise<number> {
  const { dataDir, model } = options;
  if (options.json !== undefined) await checkReportPath(options.json);
  await makeDataDir(dataDir);
  const champion = await findChampion(dataDir, model);
  const keepChampion = options.source.kind === 'default' && champion;
  const source = keepChampion ? undefined : await prepareSource(options.source, dataDir, say);
  stop.throwIfAborted();
  say('Starting the database and the gateway ...');
  const allowed = await allowSources(dataDir, source?.env ?? {});
  const env = { ...allowed, MODEL_NAME: model };
  const platform = await startPlatform({
    ...{ dataDir, port: options.port, env },
    ...(options.mlflow ? { mlflow: { say, signal: stop } } : {}),
  });
  try {
    const stopped = new Promise<void>((resolve) => stop.addEventListener('abort', () => resolve()));
    stop.throwIfAborted();
    if (platform.mlflowUrl !== undefined)
      say(`Runs, models and pictures are shown by MLflow at ${platform.mlflowUrl}`);
    const interrupted = stopped.then(() => stop.throwIfAborted());
    // Later it only ends the wait below.
    interrupted.catch(() => {});
    const trial = trainAndTry(options, platform, source, findings, stop).catch((thrown: unknown) => {
      if (options.once || !isBrokenModel(thrown)) throw thrown;
      // Whoever wants to roll back needs the platform.
      say(`\n${thrown.message}`);
    });
    await Promise.race([trial, interrupted]);
    if (options.once) return 0;
    say(`\nOpen ${platform.gatewayUrl} and drop a photo on the page. Ctrl-C stops everything.`);
    await stopped;
    return 0;
  } finally {
    await platform.stop();
  }
}

function isBrokenModel(thrown: unknown): thrown is DandelionError {
  return thrown instanceof DandelionError && thrown.code === 'model-broken';
}

/** Whether a model serves already. Asked before anything is started, so that a wrong S3 setting is told at once. */
async function findChampion(dataDir: string, model: string): Promise<boolean> {
  const settings = { OBJECTS_DIR: join(dataDir, 'objects'), ...process.env };
  const objects = openObjects(readConfig(objectSettings, settings));
  try {
    return (await readChampion(objects, model)) !== undefined;
  } catch (thrown) {
    if (!isStoreTrouble(thrown)) throw thrown;
    // Whoever named the server can mend it; it is not waited for.
    throw new DandelionError('bad-config', thrown.message, { cause: thrown });
  }
}

/** Everything up to the first answer of a model that serves; fills the findings as it goes. */
async function trainAndTry(
  options: StartOptions,
  platform: Platform,
  source: PreparedSource | undefined,
  findings: Findings,
  signal: AbortSignal,
): Promise<void> {
  let refusal: DandelionError | undefined;
  if (source !== undefined) {
    say(`Training "${options.model}" on ${source.title}; watch it at ${platform.gatewayUrl}`);
    const failure = await runPipeline(platform, source, await productVersion(), findings, signal);
    if (failure !== undefined && failure.code !== 'model-rejected') throw failure;
    refusal = failure;
  }
  findings.champion = await readServing(platform.objects, options.model);
  if (findings.champion === undefined) {
    if (refusal !== undefined) say(`\n${describeReport(buildReport(findings))}`);
    throw refusal ?? new DandelionError('no-champion', 'No model serves.');
  }
  findings.prediction = await predictOnce(platform, findings.champion.record);
  const report = buildReport(findings);
  if (refusal !== undefined)
    say(`\n${refusal.message} The model before it serves on; the figures are the new one's.`);
  say(`\n${describeReport(report)}`);
  if (options.json !== undefined) await writeReport(options.json, report);
}

async function readServing(objects: ObjectStore, model: string): Promise<Findings['champion']> {
  const found = await readChampion(objects, model);
  if (found === undefined) return undefined;
  const { version } = found.champion;
  return {
    record: await readModel(objects, model, version),
    evaluation: await readEvaluation(objects, model, version),
  };
}

async function productVersion(): Promise<string> {
  const path = join(import.meta.dirname, '../../package.json');
  return packageManifest.parse(JSON.parse(await readFile(path, 'utf8'))).version;
}

process.exitCode = await main(process.argv.slice(2));
