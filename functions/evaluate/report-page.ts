import { percent } from '../../shared/percent.ts';
import { heading, htmlPage, htmlTable, paragraph } from '../../shared/vision/html-page.ts';
import { calibrationPicture, confusionPicture, rocPicture } from '../../shared/vision/pictures.ts';
import type { TestReport } from './report.ts';

/** The report as a page with its plots in it, for people. */
export function reportPage(report: TestReport): Buffer {
  const { model, metrics, intervals, classes, approved, checks, slices } = report;
  const subject = `${metrics.images} test photos`;
  return htmlPage(`${model.name} ${model.version} on its test photos`, [
    paragraph(
      `Dataset ${report.dataset}, ${subject}: ${approved ? 'approved' : 'refused'} by the gate. Intervals hold 95 %.`,
    ),
    heading('Quality'),
    htmlTable(
      ['', 'value', '95 % interval'],
      [
        ['accuracy', percent(metrics.accuracy), between(metrics.interval, percent)],
        ['ROC AUC', metrics.rocAuc.toFixed(4), between(intervals.rocAuc, (area) => area.toFixed(4))],
        ['log-loss', report.logLoss.toFixed(4), between(intervals.logLoss, (loss) => loss.toFixed(4))],
        ['expected calibration error', percent(metrics.ece), ''],
        [
          'confidence beyond accuracy',
          percent(meanConfidence(report) - metrics.accuracy),
          between(intervals.overconfidence, percent),
        ],
        ...unknownRow(report),
      ],
    ),
    htmlTable(
      ['class', 'photos', 'precision', '95 % interval', 'recall', '95 % interval', 'F1'],
      classes.map((label) => classRow(report, label)),
    ),
    pairedPart(report),
    heading('Parts of the photos'),
    htmlTable(
      ['by', 'part', 'photos', 'accuracy', '95 % interval'],
      slices.map(({ by, name, photos, accuracy, interval }) => [
        ...[by, name, String(photos), percent(accuracy), between(interval, percent)],
      ]),
    ),
    heading('Gate'),
    htmlTable(
      ['check', 'verdict', 'value', 'limit', ''],
      checks.map(({ check, passed, value, limit, detail }) => [
        ...[check, passed ? 'passed' : 'FAILED', value.toFixed(4), String(limit), detail],
      ]),
    ),
    heading('Plots'),
    `<div class="pictures">${[
      confusionPicture(report.confusion, classes, 'Confusion matrix'),
      rocPicture(report.roc, 'ROC curves'),
      calibrationPicture(report.calibration, 'Calibration'),
    ].join('\n')}</div>`,
  ]);
}

function unknownRow({ unknown }: TestReport): string[][] {
  if (unknown === null) return [];
  return [['answered unknown all the same', percent(unknown.share), between(unknown.interval, percent)]];
}

function meanConfidence({ calibration, metrics }: TestReport): number {
  return calibration.reduce((sum, { photos, confidence }) => sum + photos * confidence, 0) / metrics.images;
}

function classRow({ metrics, intervals }: TestReport, label: string): string[] {
  const scores = metrics.perClass[label];
  const own = intervals.perClass[label];
  if (scores === undefined || own === undefined) return [label, '0', '', '', '', '', ''];
  return [
    ...[label, String(scores.support), percent(scores.precision), between(own.precision, percent)],
    ...[percent(scores.recall), between(own.recall, percent), scores.f1.toFixed(3)],
  ];
}

function pairedPart({ paired }: TestReport): string {
  if (paired === null) return paragraph('There was no champion to compare with.');
  const { champion, accuracy, logLoss, won, lost } = paired;
  const signed = (value: number) => `${value < 0 ? '' : '+'}${(value * 100).toFixed(2)} points`;
  return [
    heading(`Against the champion ${champion}, on the same photos`),
    htmlTable(
      ['', 'gain', '95 % interval'],
      [
        ['accuracy', signed(accuracy.mean), between(accuracy.interval, signed)],
        ['log-loss, less by', logLoss.mean.toFixed(4), between(logLoss.interval, (loss) => loss.toFixed(4))],
      ],
    ),
    paragraph(`Right where the champion is wrong on ${won} photos, the other way about on ${lost}.`),
  ].join('\n');
}

function between([low, high]: readonly [number, number], format: (value: number) => string): string {
  return `${format(low)} to ${format(high)}`;
}
