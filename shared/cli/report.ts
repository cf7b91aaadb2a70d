import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DandelionError, describeCode, type ErrorCode, toDandelionError } from '../errors.ts';
import { type MetricsSummary, parseEventData, type Rejection } from '../events.ts';
import { type ChainLink, type PipelineState, pipelineFunctions, rejectionType } from '../local/pipeline.ts';
import { percent } from '../percent.ts';
import type { EvaluationRecord, ModelRecord } from '../stores/models.ts';
import { CLASSICAL_EXTRACTOR } from '../vision/classical.ts';
import { durationMsOf, formatDuration } from './progress.ts';

/** One prediction of the model that serves, on a photo of the test split. */
export interface Prediction {
  label: string;
  probabilities: Record<string, number>;
  model: { name: string; version: string };
  latencyMs: number;
  /** What the photo was labelled with; null for a drawn one, when the test photos are not to be had. */
  expected: string | null;
  sha256: string;
}

/** What `--json` writes. */
export interface Report {
  schemaVersion: 1;
  ok: boolean;
  dataset: { version: string; images: number; classes: Record<string, number>; rejected: Rejection[] } | null;
  splits: { train: number; validation: number; test: number } | null;
  /** On the test split. */
  metrics: MetricsSummary | null;
  stepsMs: Record<string, number>;
  reusedSteps: string[];
  champion: { name: string; version: string } | null;
  /** What makes the champion's features. */
  extractor: string | null;
  prediction: Prediction | null;
  error?: { code: string; detail: string };
}

/** What a report is made from; everything may be missing in a run that failed. */
export interface Findings {
  chain?: ChainLink[];
  /** All photos that were left out. */
  rejected?: Rejection[] | undefined;
  state?: PipelineState;
  champion?: { record: ModelRecord; evaluation: EvaluationRecord | undefined };
  prediction?: Prediction;
  error?: DandelionError;
}

/** Puts together what is known. A run's own figures come before those of the model that serves. */
export function buildReport({
  chain = [],
  rejected = [],
  state,
  champion,
  prediction,
  error,
}: Findings): Report {
  const result = (name: string) => chain.find((link) => link.function === name)?.run?.result ?? undefined;
  const stored = result('preprocess');
  const evaluated = result('evaluate');
  const dataset =
    stored === undefined
      ? champion?.record.dataset
      : parseEventData(stored, 'dev.dandelion.features.stored.v1').dataset;
  const steps = state?.steps ?? [];
  return {
    schemaVersion: 1,
    ok: error === undefined,
    dataset: dataset
      ? { version: dataset.version, images: dataset.images, classes: dataset.classes, rejected }
      : null,
    splits: dataset?.splits ?? null,
    metrics: evaluated === undefined ? (champion?.evaluation?.metrics ?? null) : metricsOf(evaluated),
    stepsMs: Object.fromEntries(
      steps.flatMap((step) => {
        const durationMs = durationMsOf(step);
        return durationMs === undefined ? [] : [[step.function, durationMs] as const];
      }),
    ),
    reusedSteps: steps.filter((step) => step.reused).map((step) => step.function),
    champion:
      champion === undefined ? null : { name: champion.record.name, version: champion.record.version },
    extractor: champion?.record.extractor.id ?? null,
    prediction: prediction ?? null,
    ...(error === undefined ? {} : { error: { code: error.code, detail: error.message } }),
  };
}

function metricsOf(evaluated: NonNullable<ChainLink['event']>): MetricsSummary {
  if (evaluated.type === rejectionType) return parseEventData(evaluated, rejectionType).metrics;
  return parseEventData(evaluated, 'dev.dandelion.model.approved.v1').metrics;
}

/** Writes the report whole or not at all. */
export async function writeReport(path: string, report: Report): Promise<void> {
  await writeDraft(path, `${JSON.stringify(report, null, 2)}\n`, (draft) => rename(draft, path));
}

/**
 * Proves before the work begins that its report can be written.
 *
 * @throws DandelionError `bad-config`
 */
export async function checkReportPath(path: string): Promise<void> {
  await writeDraft(path, '', (draft) => rm(draft));
}

async function writeDraft(
  path: string,
  text: string,
  settle: (draft: string) => Promise<void>,
): Promise<void> {
  const draft = `${path}.${randomUUID()}.draft`;
  try {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory()) throw new Error('it is a folder');
    await mkdir(dirname(path), { recursive: true });
    await writeFile(draft, text);
    await settle(draft);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    const why = error instanceof Error ? error.message : String(error);
    throw new DandelionError(
      'bad-config',
      `The report cannot be written to ${path}: ${why}. Choose another file with --json.`,
      { cause: error },
    );
  }
}

/** Accuracies of cross-validation on 300 photos of dandelions and grass. */
const WITHOUT_BACKBONE =
  'These are classical, for want of a backbone: right for some 89 % of photos where a backbone is for 98. preprocess.log says why; BACKBONE_URI names one.';

/** The report for people. */
export function describeReport(report: Report): string {
  const { dataset, metrics, champion, prediction } = report;
  const lines: string[] = [];
  if (champion !== null) {
    lines.push(`Model ${champion.name} ${champion.version} serves, on features of ${report.extractor}.`);
    if (report.extractor === CLASSICAL_EXTRACTOR.id) lines.push(WITHOUT_BACKBONE);
  }
  if (dataset !== null) {
    const classes = Object.entries(dataset.classes).map(([label, photos]) => `${label} ${photos}`);
    lines.push(`Dataset ${dataset.version}: ${dataset.images} photos (${classes.join(', ')}).`);
    lines.push(...describeRejected(dataset.rejected));
  }
  if (metrics !== null) lines.push('', ...describeMetrics(metrics));
  const durations = pipelineFunctions.flatMap((name) => {
    const durationMs = report.stepsMs[name];
    if (report.reusedSteps.includes(name)) return [`${name} done before`];
    return durationMs === undefined ? [] : [`${name} ${formatDuration(durationMs)}`];
  });
  if (durations.length > 0) lines.push('', `Steps: ${durations.join(', ')}.`);
  if (prediction !== null) {
    const share = percent(prediction.probabilities[prediction.label] ?? 0);
    const photo = prediction.expected === null ? 'A drawn photo' : `A test photo of "${prediction.expected}"`;
    lines.push(`${photo} was classified as "${prediction.label}" (${share}) in ${prediction.latencyMs} ms.`);
  }
  return lines.join('\n');
}

/** By their reasons, most photos first: a whole class that was left out must not hide behind others. */
export function describeRejected(rejected: readonly Rejection[]): string[] {
  if (rejected.length === 0) return [];
  const reasons = [...Map.groupBy(rejected, ({ reason }) => withoutOthers(reason)).values()].sort(
    (one, other) => other.length - one.length,
  );
  const shown = reasons.slice(0, REASONS_SHOWN).map((photos) => {
    const [first] = photos;
    const others = photos.length > 1 ? ` and ${photos.length - 1} more` : '';
    return `  ${first?.source}${others}: ${first?.reason}`;
  });
  const left = reasons.slice(REASONS_SHOWN).reduce((sum, photos) => sum + photos.length, 0);
  return [
    `${photosOf(rejected.length)} left out:`,
    ...shown,
    ...(left === 0 ? [] : [`  ${photosOf(left)} left out for other reasons; --json FILE lists them all`]),
  ];
}

const REASONS_SHOWN = 8;

/** Photos that are each like another one share their reason. */
function withoutOthers(reason: string): string {
  return reason.replace(/\(see .*\)/, '');
}

function photosOf(count: number): string {
  return count === 1 ? '1 photo was' : `${count} photos were`;
}

function describeMetrics(metrics: MetricsSummary): string[] {
  const [low, high] = metrics.interval;
  const width = Math.max(10, ...Object.keys(metrics.perClass).map((label) => label.length + 2));
  const row = (label: string, cells: string[]) =>
    `  ${label.padEnd(width)}${cells.map((cell) => cell.padStart(10)).join('')}`;
  return [
    `On ${metrics.images} photos it never saw in training:`,
    `  accuracy ${percent(metrics.accuracy)} (95 % interval ${percent(low)} to ${percent(high)}), ROC AUC ${metrics.rocAuc.toFixed(3)}, calibration error ${metrics.ece.toFixed(3)}`,
    row('', ['precision', 'recall', 'F1', 'photos']),
    ...Object.entries(metrics.perClass).map(([label, { precision, recall, f1, support }]) =>
      row(label, [percent(precision), percent(recall), percent(f1), String(support)]),
    ),
  ];
}

/** What went wrong in the pipeline, with the place to look further. */
export function failureOf(state: PipelineState, logsDir: string): DandelionError | undefined {
  const failed = state.steps.find((step) => step.status === 'failed');
  if (failed === undefined) return undefined;
  const { code = 'internal', title = '', detail = '' } = failed.problem ?? {};
  if (code === 'model-rejected') {
    const limits = 'The GATE_ settings in the README hold the limits.';
    const advice = /accura/.test(detail) ? `More photos of each class help most. ${limits}` : limits;
    return new DandelionError(code, `${title}: ${detail}. ${advice}`);
  }
  return new DandelionError(
    isErrorCode(code) ? code : 'internal',
    `${failed.function}: ${detail} (log: ${logsDir}/${failed.function}.log)`,
  );
}

function isErrorCode(code: string): code is ErrorCode {
  return describeCode(code as ErrorCode) !== undefined;
}

const inputStatuses = new Set([400, 413, 415, 422]);

/** The exit code of a failure: 2 input or configuration, 3 refused by the gate, 1 anything else. */
export function exitCodeOf(thrown: unknown): 1 | 2 | 3 {
  const { code, status } = toDandelionError(thrown);
  if (code === 'model-rejected') return 3;
  return code === 'bad-config' || code === 'port-in-use' || inputStatuses.has(status) ? 2 : 1;
}
