import type { MetricsSummary } from '../../shared/events.ts';
import { runJob, workerBeside } from '../../shared/function/compute.ts';
import type { FunctionContext } from '../../shared/function/types.ts';
import type { DatasetImage } from '../../shared/stores/datasets.ts';
import type { TrackedRun } from '../../shared/stores/tracking.ts';
import { confusionPicture, rocPicture } from '../../shared/vision/pictures.ts';
import type { EvaluateJobs, ScoredModel, SheetRequest } from './worker.ts';

/** What the test split said of a candidate. */
export interface TestFindings {
  candidate: ScoredModel;
  images: readonly DatasetImage[];
  classes: string[];
  approved: boolean;
}

/** Test metrics, the verdict, and pictures of what was right and wrong, on the run that made the candidate. */
export async function logFindings(
  run: TrackedRun,
  findings: TestFindings,
  settings: SheetRequest['settings'],
  context: FunctionContext,
): Promise<void> {
  const { candidate, classes, approved } = findings;
  const { report, metrics, overconfidence, latencyMs, sizeBytes } = candidate.score;
  const { accuracy, interval, rocAuc, ece, perClass } = metrics;
  const { unknown } = candidate.answers;
  const values = {
    accuracy,
    accuracy_low: interval[0],
    accuracy_high: interval[1],
    roc_auc: rocAuc,
    ece,
    log_loss: report.logLoss,
    overconfidence,
    latency_ms: latencyMs,
    size_bytes: sizeBytes,
    ...(unknown !== null && { unknown: unknown / metrics.images }),
  };
  const ofClasses = Object.entries(perClass).flatMap(([label, { precision, recall, f1 }]) =>
    Object.entries({ precision, recall, f1 }).map(([name, value]) => [`${name}/${label}`, value] as const),
  );
  await run.logMetrics(
    [...Object.entries(values), ...ofClasses].map(([name, value]) => ({
      key: `test/${name}`,
      value,
      step: 0,
    })),
  );
  await run.setTags({
    'dandelion.approved': String(approved),
    // MLflow shows it as the run's description.
    'mlflow.note.content': verdictSentence(metrics, approved),
  });
  const subject = `${candidate.record.name} ${candidate.record.version}, ${metrics.images} test photos`;
  await run.logArtifact('test/confusion.svg', confusionPicture(report.confusion, classes, subject));
  await run.logArtifact('test/roc.svg', rocPicture(report.roc, subject));
  const request = { settings, mistakes: mistakesOf(findings), subject };
  const sheet = await runJob<EvaluateJobs, 'drawSheet'>(
    workerBeside(import.meta.url),
    'drawSheet',
    request,
    context,
  );
  await run.logArtifact('test/misclassified.svg', sheet);
}

function verdictSentence({ accuracy, interval, images }: MetricsSummary, approved: boolean): string {
  const [of, low, high] = [accuracy, ...interval].map((share) => (share * 100).toFixed(1));
  const verdict = approved ? 'Approved' : 'Refused';
  return `${verdict} by the gate: right on ${of} % of ${images} test photos (95 % interval ${low} % to ${high} %).`;
}

/** Photos with a wrong answer, the surest first. */
function mistakesOf({ candidate, images, classes }: TestFindings): SheetRequest['mistakes'] {
  const { probabilities } = candidate.answers;
  const mistakes = images.flatMap(({ sha256, label }, row) => {
    if (candidate.score.correct[row] !== false) return [];
    const own = probabilities.subarray(row * classes.length, (row + 1) * classes.length);
    const confidence = Math.max(...own);
    return [{ sha256, label, answer: classes[own.indexOf(confidence)] ?? '', confidence }];
  });
  return mistakes.sort((a, b) => b.confidence - a.confidence);
}
