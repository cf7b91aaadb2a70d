import { expect, test } from 'vitest';
import type { StepRun } from '../../stores/steps.ts';
import type { TaskInstance } from './api.ts';
import { formatTimings, timingsOf } from './timings.ts';

const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString();
const task = (id: string, endS: number | null, tries = 1): TaskInstance => ({
  ...{ task_id: id, state: 'success', try_number: tries, start_date: at(0) },
  end_date: endS === null ? null : at(endS),
});
const step = (name: string, startS: number, endS: number, attempt = 1): [string, StepRun] => [
  name,
  { startedAt: at(startS), finishedAt: at(endS), attempt } as StepRun,
];
const run = { dag_run_id: 'r', state: 'success', start_date: at(0), end_date: at(30) };

test('a step counts from the end of the one before, and its overhead is what the function did not take', () => {
  const tasks = [
    task('ingest', 2),
    task('wait_ingest', 10, 2),
    task('preprocess', 11),
    task('wait_preprocess', 16),
  ];
  const ledger = new Map([step('ingest', 1, 8, 3), step('preprocess', 11, 15)]);
  const timings = timingsOf(run, tasks, ledger);
  expect(timings).toEqual([
    { step: 'ingest', throughAirflowS: 10, itselfS: 7, overheadS: 3, tries: 2, attempts: 3 },
    { step: 'preprocess', throughAirflowS: 6, itselfS: 4, overheadS: 2, tries: 1, attempts: 1 },
  ]);
  expect(formatTimings(timings).split('\n')).toEqual([
    'step        through Airflow s  step itself s  overhead s  tries  attempts',
    'ingest                   10.0            7.0         3.0      2         3',
    'preprocess                6.0            4.0         2.0      1         1',
  ]);
});

test('a step that was skipped or has not ended is left out', () => {
  const tasks = [task('ingest', 2), task('wait_ingest', null)];
  expect(timingsOf(run, tasks, new Map([step('ingest', 1, 2)]))).toEqual([]);
  expect(timingsOf(run, tasks, new Map())).toEqual([]);
});
