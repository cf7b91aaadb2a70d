/** `measured` is a figure without a goal; `skipped` was not looked at, and the goal says why. */
export type Outcome = 'passed' | 'failed' | 'measured' | 'skipped';

/** One line of the result: what was measured, and whether it is what it should be. */
export interface Row {
  measure: string;
  value: string;
  goal: string;
  outcome: Outcome;
}

export function row(measure: string, value: string | number, goal: string, ok: boolean): Row {
  return { measure, value: String(value), goal, outcome: ok ? 'passed' : 'failed' };
}

/** A figure that nothing is asked of. */
export function measured(measure: string, value: string): Row {
  return { measure, value, goal: '', outcome: 'measured' };
}

/** @param reason what to do so that it runs */
export function skipped(measure: string, reason: string): Row {
  return { measure, value: 'not run', goal: reason, outcome: 'skipped' };
}

const words: Record<Outcome, string> = { passed: 'ok', failed: 'FAILED', measured: '', skipped: 'SKIPPED' };

/** The rows as a table, and a line that counts them by outcome. */
export function formatRows(rows: readonly Row[]): string {
  const head = { measure: 'measure', value: 'value', goal: 'goal', word: '' };
  const lines = [head, ...rows.map((each) => ({ ...each, word: words[each.outcome] }))];
  const width = (column: 'measure' | 'value' | 'goal') =>
    Math.max(...lines.map((line) => line[column].length));
  const [measure, value, goal] = [width('measure'), width('value'), width('goal')];
  const table = lines.map((line) =>
    `${line.measure.padEnd(measure)}  ${line.value.padEnd(value)}  ${line.goal.padEnd(goal)}  ${line.word}`.trimEnd(),
  );
  return [...table, '', summaryOf(rows)].join('\n');
}

function summaryOf(rows: readonly Row[]): string {
  const count = (outcome: Outcome) => rows.filter((each) => each.outcome === outcome).length;
  return `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`;
}

/** What was not looked at has not passed: without one check that did, the suite has not either. */
export function hasPassed(rows: readonly Row[]): boolean {
  return (
    rows.some(({ outcome }) => outcome === 'passed') && rows.every(({ outcome }) => outcome !== 'failed')
  );
}
