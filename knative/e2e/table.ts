/** One line of the result: what was measured, and whether it is what it should be. */
export interface Row {
  measure: string;
  value: string;
  goal: string;
  ok: boolean;
}

export function row(measure: string, value: string | number, goal: string, ok: boolean): Row {
  return { measure, value: String(value), goal, ok };
}

export function formatRows(rows: readonly Row[]): string {
  const head = { measure: 'measure', value: 'value', goal: 'goal', ok: '' };
  const lines = [head, ...rows.map((each) => ({ ...each, ok: each.ok ? 'ok' : 'FAILED' }))];
  const width = (column: 'measure' | 'value' | 'goal') =>
    Math.max(...lines.map((line) => line[column].length));
  const [measure, value, goal] = [width('measure'), width('value'), width('goal')];
  return lines
    .map(
      (line) =>
        `${line.measure.padEnd(measure)}  ${line.value.padEnd(value)}  ${line.goal.padEnd(goal)}  ${line.ok}`,
    )
    .join('\n');
}
