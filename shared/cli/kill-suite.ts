import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toDandelionError } from '../errors.ts';
import { readWords, wholeNumber } from './command-line.ts';
import { type KillRounds, runKillRounds } from './kill-rounds.ts';
import { exitCodeOf } from './report.ts';

const usage = `Ends functions in the middle of their work, again and again, and counts what that lost.

  npm run kill-suite -- --pipelines N    how many pipelines are struck (default 50, about 4 s each)
                        --seed N         chooses victims and moments (default 1)
`;

const options = {
  pipelines: { type: 'string', default: '50' },
  seed: { type: 'string', default: '1' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** `npm run kill-suite`. @returns the exit code: 0 when nothing was lost, doubled or left unfinished */
async function main(words: string[]): Promise<number> {
  try {
    const given = read(words);
    if (given === 'help') {
      process.stdout.write(usage);
      return 0;
    }
    return await strike(given);
  } catch (error) {
    process.stderr.write(`${toDandelionError(error).message}\n`);
    return exitCodeOf(error);
  }
}

async function strike({ pipelines, seed }: { pipelines: number; seed: number }): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-kill-suite-'));
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  say(`${pipelines} pipelines, seed ${seed}, in ${folder}`);
  const startedAt = Date.now();
  const rounds = await runKillRounds({ pipelines, seed, folder, say });
  for (const { kind, what } of rounds.faults) say(`${kind}: ${what}`);
  say(describeRounds(rounds, Date.now() - startedAt));
  const isWhole = rounds.faults.length === 0 && rounds.pipelines === pipelines;
  // The logs of a run that went wrong are what explains it.
  if (isWhole) await rm(folder, { recursive: true, force: true });
  return isWhole ? 0 : 1;
}

function describeRounds(rounds: KillRounds, durationMs: number): string {
  const count = (kind: string) => rounds.faults.filter((fault) => fault.kind === kind).length;
  const { pipelines, kills, struckAttempts, restarts } = rounds;
  return [
    `${pipelines} pipelines, ${kills} signals, ${struckAttempts} attempts ended early, ${restarts} restarts of the platform, ${Math.round(durationMs / 1000)} s`,
    `lost ${count('lost')}, doubled ${count('doubled')}, unfinished ${count('unfinished')}`,
  ].join('\n');
}

function read(words: string[]): { pipelines: number; seed: number } | 'help' {
  const given = readWords({ args: words, options, allowPositionals: false }).values;
  if (given.help) return 'help';
  return {
    pipelines: wholeNumber('pipelines', given.pipelines, 1),
    seed: wholeNumber('seed', given.seed, 0),
  };
}

process.exitCode = await main(process.argv.slice(2));
