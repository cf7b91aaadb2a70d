import { expect, test } from 'vitest';
import type { StepRun } from '../../stores/steps.ts';
import type { TaskInstance } from './api.ts';
import { formatOverhead, formatTimings, timingsOf } from './timings.ts';

const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString();
const task = (id: string, startS: number, endS: number | null, tries = 1): TaskInstance => ({
  ...{ task_id: id, map_index: -1, state: 'success', try_number: tries, start_date: at(startS) },
  end_date: endS === null ? null : at(endS),
});
const step = (name: string, startS: number, endS: number, attempt = 1): [string, StepRun] => [
  name,
  { startedAt: at(startS), finishedAt: at(endS), attempt } as StepRun,
];
const run = { dag_run_id: 'r', state: 'success', start_date: at(0), end_date: at(30) };

test('a step counts from the end of the task before, and its overhead is what the function did not take', () => {
  const tasks = [
    ...[task('request', 0, 1), task('ingest', 1, 3), task('wait_ingest', 4, 11, 2)],
    ...[task('preprocess', 12, 13), task('wait_preprocess', 13, 17)],
    ...[task('gate', 17, 20), task('deploy', 20, 22), task('wait_deploy', 22, 25)],
  ];
  const ledger = new Map([step('ingest', 2, 9, 3), step('preprocess', 12, 16), step('deploy', 21, 22)]);
  const timings = timingsOf(run, tasks, ledger);
  expect(timings.map(({ step: name, overheadS }) => [name, overheadS])).toEqual([
    ['ingest', 3],
    ['preprocess', 2],
    ['deploy', 4],
  ]);
  expect(formatTimings(timings).split('\n')).toEqual([
    'step        submit s  wait s  through Airflow s  step itself s  overhead s  tries  attempts',
    'ingest           2.0     7.0               10.0            7.0         3.0      2         3',
    'preprocess       1.0     4.0                6.0            4.0         2.0      1         1',
    'deploy           2.0     3.0                5.0            1.0         4.0      1         1',
  ]);
  expect(formatOverhead(timings)).toBe('overhead of a step: mean 3.0 s, most 4.0 s; 1 of 3 under 3 s');
});

test('a step that was skipped or has not ended is left out', () => {
  const tasks = [task('ingest', 0, 2), task('wait_ingest', 2, null)];
  expect(timingsOf(run, tasks, new Map([step('ingest', 1, 2)]))).toEqual([]);
  expect(timingsOf(run, tasks, new Map())).toEqual([]);
});
