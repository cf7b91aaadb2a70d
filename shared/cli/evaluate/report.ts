import type { CrossValidated, Gain, PairedGain } from '../../vision/cross-validation.ts';
import { describeRejected } from '../report.ts';
import type { CorruptedReport } from './corrupted.ts';
import type { Diagnosis } from './doctor.ts';
import type { UnknownReport } from './unknowns.ts';

/** The terminal shows the worst; the JSON has all. */
const MISTAKEN_SHOWN = 10;

/** What `npm run evaluate --json` writes. */
export interface EvaluationReport {
  schemaVersion: 1;
  images: {
    folder: string;
    used: number;
    /** Near-duplicates counted as one. */
    different: number;
    classes: Record<string, number>;
  };
  extractor: string;
  folds: number;
  seeds: number;
  /** Trained as the pipeline does. */
  pipeline: CrossValidated;
  /** The plain head, on the same folds. */
  plainHead: CrossValidated;
  /** Of the pipeline over the plain head. */
  gain: PairedGain;
  /** Null unless asked for. */
  corruptions: CorruptedReport | null;
  /** Null unless photos of none of the classes were given. */
  unknowns: UnknownReport | null;
  doctor: Diagnosis;
}

/** The report as tables for a terminal. */
export function formatReport({
  images,
  pipeline,
  plainHead,
  gain,
  corruptions,
  unknowns,
  doctor,
  ...run
}: EvaluationReport): string {
  const classes = Object.entries(images.classes).map(([label, photos]) => `${label} ${photos}`);
  const scores = ({ accuracy, interval, rocAuc, ece, logLoss }: CrossValidated) => [
    ...[percent(accuracy), `${percent(interval[0])} to ${percent(interval[1])}`],
    ...[rocAuc.toFixed(4), percent(ece), logLoss.toFixed(4)],
  ];
  return [
    `${images.used} photos (${classes.join(', ')}), ${images.different} different, ${doctor.rejected.length} set aside;` +
      ` ${run.folds} folds x ${run.seeds} seeds on ${run.extractor}`,
    ...describeRejected(doctor.rejected),
    '',
    alignedTable([
      ['', 'accuracy', '95 % interval', 'ROC AUC', 'ECE', 'log-loss'],
      ['pipeline', ...scores(pipeline)],
      ['plain head', ...scores(plainHead)],
    ]),
    '',
    `Gain over the plain head: accuracy ${points(gain.accuracy)}, log-loss ${losses(gain.logLoss)};` +
      ` better on ${gain.won} photos, worse on ${gain.lost}`,
    '',
    alignedTable([
      ['class', 'photos', 'precision', 'recall', 'F1'],
      ...Object.entries(pipeline.perClass).map(([label, { photos, precision, recall, f1 }]) => [
        ...[label, String(photos), percent(precision), percent(recall), percent(f1)],
      ]),
    ]),
    ...(corruptions === null ? [] : ['', formatCorrupted(corruptions)]),
    ...(unknowns === null ? [] : ['', formatUnknowns(unknowns)]),
  ].join('\n');
}

function formatCorrupted({ all, each }: CorruptedReport): string {
  const line = (
    name: string,
    { pipeline, plainHead }: { pipeline: number; plainHead: number },
    gain: Gain,
  ) => [...[name, percent(pipeline), percent(plainHead), points(gain)]];
  return alignedTable([
    ['corrupted photos', 'pipeline', 'plain head', 'gain'],
    ...each.map((one) => line(one.corruption, one, one.gain)),
    line('all', all, all.gain.accuracy),
  ]);
}

function formatUnknowns({ others, rocAuc, accepted, refused, mistaken, rejected }: UnknownReport): string {
  const unread = rejected.length === 0 ? '' : `, ${rejected.length} that cannot be read`;
  return [
    `${others} photos of none of the classes${unread}: ROC AUC ${rocAuc.toFixed(4)};` +
      ` ${percent(refused)} of them are unknown, ${percent(accepted)} of the held-out photos of the classes are not`,
    ...mistaken.slice(0, MISTAKEN_SHOWN).map(({ source }) => `  taken for one of the classes: ${source}`),
  ].join('\n');
}

/** Cells in columns: the first to the left, the others to the right. */
function alignedTable(lines: readonly string[][]): string {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  '),
    )
    .join('\n');
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}

function points({ mean, interval: [low, high] }: Gain): string {
  const signed = (share: number) => `${share < 0 ? '' : '+'}${(share * 100).toFixed(2)}`;
  return `${signed(mean)} points (95 % interval ${signed(low)} to ${signed(high)})`;
}

function losses({ mean, interval: [low, high] }: Gain): string {
  const signed = (loss: number) => `${loss > 0 ? '-' : '+'}${Math.abs(loss).toFixed(4)}`;
  return `${signed(mean)} (${signed(low)} to ${signed(high)})`;
}
