import { describe, expect, it } from 'vitest';
import { benchNames, readOptions } from './options.ts';

const read = (...words: string[]) => {
  const options = readOptions(words);
  if (options === 'help') throw new Error('not asked for help');
  return options;
};

describe('the command line of the bench', () => {
  it('measures everything without peers unless told otherwise', () => {
    const options = read();
    expect([...options.only]).toEqual([...benchNames]);
    expect(options).toMatchObject({ runs: 5, quick: false, peers: 'none' });
    expect(options.json).toMatch(/\.data.bench\.json$/);
  });

  it('takes a list of names, a number of runs, and peers with or without a value', () => {
    expect([...read('--only', 'predict, train').only]).toEqual(['predict', 'train']);
    expect(read('--runs', '3').runs).toBe(3);
    expect(read('--quick').runs).toBe(2);
    expect(read().databaseImages).toBe(10_000);
    expect(read('--database-images', '100000').databaseImages).toBe(100_000);
    expect(read('--peers', '--quick').peers).toBe('usual');
    expect(read('--peers=all').peers).toBe('all');
    expect(readOptions(['--help'])).toBe('help');
  });

  it.each([
    [['--only', 'nothing']],
    [['--runs', '0']],
    [['--database-images', 'many']],
    [['--peers=some']],
    [['--unknown']],
    [['word']],
  ])('refuses %j', (words) => {
    expect(() => readOptions(words)).toThrow(expect.objectContaining({ code: 'bad-config' }));
  });
});
