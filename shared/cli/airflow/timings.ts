import { type PipelineFunction, pipelineFunctions } from '../../local/pipeline.ts';
import type { StepRun } from '../../stores/steps.ts';
import type { DagRun, TaskInstance } from './api.ts';

/** One step of a run of the DAG `retrain`; times in seconds. */
export interface StepTiming {
  step: PipelineFunction;
  /** From the end of the step before (the start of the run) to the end of this one, as Airflow has it. */
  throughAirflowS: number;
  /** What the function itself took, as the ledger has it. */
  itselfS: number;
  overheadS: number;
  /** Tries of both tasks, and attempts of the function. */
  tries: number;
  attempts: number;
}

/** Seconds that Airflow adds to each step. @param steps the runs of the ledger, by function */
export function timingsOf(
  run: DagRun,
  tasks: readonly TaskInstance[],
  steps: ReadonlyMap<string, StepRun>,
): StepTiming[] {
  const timings: StepTiming[] = [];
  let before = Date.parse(run.start_date ?? '');
  for (const step of pipelineFunctions) {
    const submit = tasks.find((task) => task.task_id === step);
    const wait = tasks.find((task) => task.task_id === `wait_${step}`);
    const ledger = steps.get(step);
    if (submit === undefined || wait === undefined || ledger === undefined || wait.end_date === null)
      continue;
    const ended = Date.parse(wait.end_date);
    const throughAirflowS = (ended - before) / 1000;
    const itselfS = (Date.parse(ledger.finishedAt ?? '') - Date.parse(ledger.startedAt ?? '')) / 1000;
    timings.push({
      ...{ step, throughAirflowS, itselfS, overheadS: throughAirflowS - itselfS },
      tries: Math.max(submit.try_number, wait.try_number),
      attempts: ledger.attempt,
    });
    before = ended;
  }
  return timings;
}

const heads = ['step', 'through Airflow s', 'step itself s', 'overhead s', 'tries', 'attempts'];

/** The timings as lines of an aligned table. */
export function formatTimings(timings: readonly StepTiming[]): string {
  const rows = timings.map((timing) => [
    timing.step,
    timing.throughAirflowS.toFixed(1),
    timing.itselfS.toFixed(1),
    timing.overheadS.toFixed(1),
    String(timing.tries),
    String(timing.attempts),
  ]);
  const widths = heads.map((head, column) =>
    Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  return [heads, ...rows]
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  '),
    )
    .join('\n');
}
