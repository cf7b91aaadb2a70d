/** `npm run drift-simulation`: how often drift is told when nothing has changed, and when something has. */
import { DandelionError, toDandelionError } from '../errors.ts';
import { shifts, simulateDrift } from '../vision/drift-simulation.ts';
import { wilsonInterval } from '../vision/metrics.ts';
import { readWords, wholeNumber } from './command-line.ts';
import { exitCodeOf } from './report.ts';

const usage = `Shows each of many models a window of drawn photos, unchanged and changed, and counts what is told of drift.

  npm run drift-simulation -- --models N    models, each with a window a change (default 200)
                              --window N    photos a window (default 200)
                              --level P     chance of a false alarm a window is given (default 0.05)
                              --seed N      (default 1)

Exit code 1 when alarms without a change are proved to be more than stated.
`;

const options = {
  models: { type: 'string', default: '200' },
  window: { type: 'string', default: '200' },
  level: { type: 'string', default: '0.05' },
  seed: { type: 'string', default: '1' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

const TRAINING = 160;

/** @returns the exit code */
async function main(words: string[]): Promise<number> {
  const given = readWords({ args: words, options, allowPositionals: false }).values;
  if (given.help) {
    process.stdout.write(usage);
    return 0;
  }
  const models = wholeNumber('models', given.models, 1);
  const window = wholeNumber('window', given.window, 1);
  const seed = wholeNumber('seed', given.seed, 0);
  const level = Number(given.level);
  if (!(level > 0 && level < 1))
    throw new DandelionError('bad-config', `--level ${given.level} is no chance.`);
  const alarms = await simulateDrift({ training: TRAINING, window, models, level, seed });
  for (const shift of shifts) {
    const { windows, alarms: told } = alarms[shift];
    const [low, high] = wilsonInterval(told, windows).map((share) => `${(share * 100).toFixed(1)} %`);
    const rate = `${((told / windows) * 100).toFixed(1)} %`;
    process.stdout.write(
      `${shift.padEnd(12)} ${rate.padStart(7)} of ${windows} windows (${low} to ${high})\n`,
    );
  }
  const { windows, alarms: told } = alarms.none;
  return wilsonInterval(told, windows)[0] > level ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${toDandelionError(error).message}\n`);
  return exitCodeOf(error);
});
