import { readConfig } from '../../shared/config.ts';
import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import { parseEventData } from '../../shared/events.ts';
import { startCompute, workerBeside } from '../../shared/function/compute.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { type Database, openDatabase } from '../../shared/stores/database.ts';
import { type DatasetImage, readDataset } from '../../shared/stores/datasets.ts';
import { readFeatures, readSliceFacts } from '../../shared/stores/features.ts';
import {
  type ModelRecord,
  readChampion,
  readModelFile,
  writeEvaluation,
  writeReport,
} from '../../shared/stores/models.ts';
import { type ObjectStore, openObjects } from '../../shared/stores/objects.ts';
import { openTracker, type TrackedRun, type Tracker } from '../../shared/stores/tracking.ts';
import { applyHead, parseHead } from '../../shared/vision/head.ts';
import type { SliceFacts } from '../../shared/vision/slices.ts';
import { evaluateSettings, type GateLimits } from './config.ts';
import { judge } from './gate.ts';
import { buildReport, type TestReport } from './report.ts';
import { reportPage } from './report-page.ts';
import type { Answers } from './score.ts';
import { logFindings } from './tracking.ts';
import type { EvaluateJobs, ScoredModel } from './worker.ts';

export const durable = true;

let limits: GateLimits;
let db: Database;
let objects: ObjectStore;
let tracker: Tracker;

export async function init({ env }: InitContext): Promise<void> {
  limits = readConfig(evaluateSettings, env);
  db = await openDatabase(limits.DATABASE_URL);
  objects = openObjects(limits);
  tracker = openTracker(limits);
}

/** A candidate faces the test split, the champion faces it too, and the gate decides. */
export async function handler(event: FunctionEvent, context: FunctionContext) {
  const trained = parseEventData(event.cloudEvent, 'dev.dandelion.model.trained.v1');
  const { name, version } = trained.model;
  const images = await readDataset(db, name, trained.dataset.version, 'test');
  if (images.length === 0) {
    throw new DandelionError('bad-data', `Dataset ${trained.dataset.version} of ${name} has no test photos.`);
  }
  const rival = await findRival(name, version);
  const classes = Object.keys(trained.dataset.classes).sort();
  const models = rival === undefined ? [version] : [version, rival];
  const [candidate, champion] = await scoreModels(name, models, { images, classes }, context);
  if (candidate === undefined) throw new DandelionError('internal', 'The candidate was not scored.');
  const servingDeviation = await strayFromHead(candidate, trained.dataset.version);
  const checks = judge({ ...candidate.score, servingDeviation }, champion?.score, limits);
  const approved = checks.every((check) => check.passed);
  const verdict = {
    checks,
    metrics: candidate.score.metrics,
    champion: champion ? { version: champion.record.version, metrics: champion.score.metrics } : null,
  };

  await writeEvaluation(objects, name, version, {
    schemaVersion: 1,
    evaluatedAt: new Date().toISOString(),
    approved,
    confusion: candidate.score.report.confusion,
    ...verdict,
  });
  const run = await tracker.resumeRun({
    experiment: name,
    runId: trained.runId,
    runName: version,
    tags: { 'dandelion.version': version, 'dandelion.dataset': trained.dataset.version },
  });
  const findings = { candidate, images, classes, approved };
  await logFindings(run, findings, limits, context);
  await publishReport(run, buildReport(findings, champion, checks, await factsOf(candidate, images)));
  context.log.info({ approved, checks }, 'gate decided');
  const data = { model: trained.model, dataset: trained.dataset, ...verdict };
  return approved
    ? context.result('dev.dandelion.model.approved.v1', { ...data, canary: trained.canary }, version)
    : context.result('dev.dandelion.model.rejected.v1', data, version);
}

/** What the test photos are sliced by. */
function factsOf({ record }: ScoredModel, images: readonly DatasetImage[]): Promise<SliceFacts[]> {
  const digests = images.map(({ sha256 }) => sha256);
  return readSliceFacts(db, { model: record.name, extractor: record.extractor.id }, digests);
}

/** The report for programs and for people, beside the model and on its run. */
async function publishReport(run: TrackedRun, report: TestReport): Promise<void> {
  const { name, version } = report.model;
  const json = Buffer.from(`${JSON.stringify(report, null, 2)}\n`);
  const page = reportPage(report);
  await writeReport(objects, name, version, { json, page });
  await run.logArtifact('test/report.json', json);
  await run.logArtifact('test/report.html', page);
}

/** The champion to beat; a candidate that already serves (its event was repeated) has none. */
async function findRival(name: string, version: string): Promise<string | undefined> {
  const current = await readChampion(objects, name);
  return current?.champion.version === version ? undefined : current?.champion.version;
}

/** Lets one version after the other answer the same photos, in a thread of their own: engines block. */
async function scoreModels(
  name: string,
  versions: string[],
  test: { images: DatasetImage[]; classes: string[] },
  context: FunctionContext,
): Promise<ScoredModel[]> {
  const photos = test.images.length;
  const scored: ScoredModel[] = [];
  const compute = startCompute<EvaluateJobs>(workerBeside(import.meta.url), {
    ...{ signal: context.signal, log: context.log },
    progress: (done) =>
      context.progress(scored.length * photos + done, versions.length * photos, 'scoring test photos'),
  });
  try {
    for (const version of versions) {
      const scoring = compute.run('score', { settings: limits, name, version, ...test });
      scored.push(await (version === versions[0] ? scoring : scoring.catch(withCure)));
    }
    return scored;
  } finally {
    await compute.close();
  }
}

/** A champion that cannot be loaded would be in the way of every candidate, and the reason alone tells nobody what to do. */
function withCure(thrown: unknown): never {
  const error = toDandelionError(thrown);
  if (error.code !== 'model-broken') throw thrown;
  throw new DandelionError(
    'model-broken',
    `There is no comparing with the champion. ${error.message} Let another version serve (npm run rollback), then train again.`,
    { cause: thrown },
  );
}

/** How far the graph that will serve strays from the head that was trained, on the test photos' stored features. */
async function strayFromHead(
  tested: { record: ModelRecord; answers: Answers },
  datasetVersion: string,
): Promise<number> {
  const { record, answers } = tested;
  const stored = await readFeatures(
    db,
    { model: record.name, version: datasetVersion, split: 'test' },
    record.extractor,
  );
  const head = parseHead(await readModelFile(objects, record, 'head.bin'));
  const expected = applyHead(head, stored.features, stored.labels.length);
  return answers.probabilities.reduce(
    (largest, probability, index) => Math.max(largest, Math.abs(probability - (expected[index] ?? 0))),
    0,
  );
}
