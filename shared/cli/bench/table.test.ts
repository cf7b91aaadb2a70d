import { describe, expect, it } from 'vitest';
import { summarise } from './statistics.ts';
import { formatTable, meetsGoal, row } from './table.ts';

describe('the table of figures', () => {
  it('aligns columns and shows three digits', () => {
    const text = formatTable([
      row('a', 'ms', summarise([0.1234, 0.2, 0.3])),
      row('a longer name', 'photos/s', summarise([1234.5, 99.95, 12.345])),
    ]);
    expect(text.split('\n')).toEqual([
      '               median  unit       min   max  runs  goal',
      'a                0.20  ms        0.12  0.30     3',
      'a longer name   100.0  photos/s  12.3  1235     3',
    ]);
  });

  it('says whether a goal is met', () => {
    const slow = row('ratio', 'x', summarise([1]), { atMost: 0.9 });
    const fast = row('ratio', 'x', summarise([1.3]), { atLeast: 1.25 });
    expect(meetsGoal(slow)).toBe(false);
    expect(meetsGoal(fast)).toBe(true);
    expect(meetsGoal(row('bare', 'ms', summarise([1])))).toBeUndefined();
    expect(formatTable([slow, fast])).toMatch(/<= 0\.9 MISSED\n.*>= 1\.25 met$/);
  });

  it('shows a dash where nothing was measured', () => {
    const nothing = row('nothing', 'MB', summarise([]), { atMost: 250 });
    expect(meetsGoal(nothing)).toBeUndefined();
    expect(formatTable([nothing])).toMatch(/nothing +- +MB +- +- +0 +<= 250 not measured$/);
  });
});
