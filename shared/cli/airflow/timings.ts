import { type PipelineFunction, pipelineFunctions } from '../../local/pipeline.ts';
import type { StepRun } from '../../stores/steps.ts';
import type { DagRun, TaskInstance } from './api.ts';

/** One step of a run of the DAG `retrain`; times in seconds. */
export interface StepTiming {
  step: PipelineFunction;
  /** Of the two tasks, from their starts to their ends. */
  submitS: number;
  waitS: number;
  /** From the end of the task before (the start of the run) to the end of this one, as Airflow has it. */
  throughAirflowS: number;
  /** What the function itself took, as the ledger has it. */
  itselfS: number;
  overheadS: number;
  /** Tries of both tasks, and attempts of the function. */
  tries: number;
  attempts: number;
}

/** Tasks that no function works for, by the step that waits for them. */
const tasksBefore: Partial<Record<PipelineFunction, string>> = { ingest: 'request', deploy: 'gate' };

/** Seconds that Airflow adds to each step. @param steps the runs of the ledger, by function */
export function timingsOf(
  run: DagRun,
  tasks: readonly TaskInstance[],
  steps: ReadonlyMap<string, StepRun>,
): StepTiming[] {
  const taskOf = (id: string) => tasks.find((task) => task.task_id === id);
  const timings: StepTiming[] = [];
  let before = run.start_date;
  for (const step of pipelineFunctions) {
    const submit = taskOf(step);
    const wait = taskOf(`wait_${step}`);
    const ledger = steps.get(step);
    if (submit === undefined || wait === undefined || ledger === undefined || wait.end_date === null)
      continue;
    before = taskOf(tasksBefore[step] ?? '')?.end_date ?? before;
    const throughAirflowS = secondsBetween(before, wait.end_date);
    const itselfS = secondsBetween(ledger.startedAt, ledger.finishedAt);
    timings.push({
      step,
      submitS: secondsBetween(submit.start_date, submit.end_date),
      waitS: secondsBetween(wait.start_date, wait.end_date),
      ...{ throughAirflowS, itselfS, overheadS: throughAirflowS - itselfS },
      tries: Math.max(submit.try_number, wait.try_number),
      attempts: ledger.attempt,
    });
    before = wait.end_date;
  }
  return timings;
}

function secondsBetween(from: string | null, until: string | null): number {
  return (Date.parse(until ?? '') - Date.parse(from ?? '')) / 1000;
}

/** What is asked of the overhead of a step. */
const OVERHEAD_GOAL_S = 3;

/** One line: the mean of the overheads and the largest, against the goal. */
export function formatOverhead(timings: readonly StepTiming[]): string {
  const overheads = timings.map(({ overheadS }) => overheadS);
  const mean = overheads.reduce((sum, each) => sum + each, 0) / overheads.length;
  const most = Math.max(...overheads);
  const reached = `${overheads.filter((each) => each < OVERHEAD_GOAL_S).length} of ${overheads.length}`;
  return `overhead of a step: mean ${mean.toFixed(1)} s, most ${most.toFixed(1)} s; ${reached} under ${OVERHEAD_GOAL_S} s`;
}

const heads = [
  'step',
  'submit s',
  'wait s',
  'through Airflow s',
  'step itself s',
  'overhead s',
  'tries',
  'attempts',
];

/** The timings as lines of an aligned table. */
export function formatTimings(timings: readonly StepTiming[]): string {
  const rows = timings.map((timing) => [
    timing.step,
    timing.submitS.toFixed(1),
    timing.waitS.toFixed(1),
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
