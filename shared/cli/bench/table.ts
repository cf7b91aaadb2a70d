import type { Summary } from './statistics.ts';

/** What a figure should be; ratios and differences have goals, bare figures depend on the machine. */
export interface Goal {
  atLeast?: number;
  atMost?: number;
}

/** One figure of the bench. */
export interface Row extends Summary {
  /** What was measured: `predict, 8 connections: throughput`. */
  name: string;
  /** `ms`, `photos/s`, `x` for a ratio … */
  unit: string;
  goal?: Goal;
}

export function row(name: string, unit: string, summary: Summary, goal?: Goal): Row {
  return { name, unit, ...summary, ...(goal === undefined ? {} : { goal }) };
}

/** Whether the median reaches the goal; `undefined` where there is no goal, or nothing could be measured. */
export function meetsGoal({ goal, median }: Row): boolean | undefined {
  if (goal === undefined || Number.isNaN(median)) return undefined;
  return median >= (goal.atLeast ?? Number.NEGATIVE_INFINITY) && median <= (goal.atMost ?? Infinity);
}

const heads = ['', 'median', 'unit', 'min', 'max', 'runs', 'goal'];

/** The rows as an aligned table for a terminal. */
export function formatTable(rows: readonly Row[]): string {
  const lines = [heads, ...rows.map(cellsOf)];
  const widths = heads.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((cells) =>
      cells
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return isNumeric(column) ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function isNumeric(column: number): boolean {
  return [1, 3, 4, 5].includes(column);
}

function cellsOf(line: Row): string[] {
  const { name, unit, median, low, high, runs } = line;
  return [name, digits(median), unit, digits(low), digits(high), String(runs), goalText(line)];
}

function goalText(line: Row): string {
  const { atLeast, atMost } = line.goal ?? {};
  const limits = [
    ...(atLeast === undefined ? [] : [`>= ${atLeast}`]),
    ...(atMost === undefined ? [] : [`<= ${atMost}`]),
  ];
  if (limits.length === 0) return '';
  const met = meetsGoal(line);
  return `${limits.join(', ')} ${met === undefined ? 'not measured' : met ? 'met' : 'MISSED'}`;
}

/** Three digits that count, never fewer than the whole number. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const whole = Math.abs(value) < 1 ? 1 : Math.floor(Math.log10(Math.abs(value))) + 1;
  return value.toFixed(Math.max(0, 3 - whole));
}
