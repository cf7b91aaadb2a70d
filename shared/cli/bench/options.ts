import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';

/** What can be measured, in the order in which it is. */
export const benchNames = [
  'predict',
  'prediction-log',
  'telemetry',
  'ingest',
  'preprocess',
  'train',
  'cold-start',
  'engines',
  'events',
  'steps',
  'database',
  'objects',
  'memory',
] as const;
export type BenchName = (typeof benchNames)[number];

/** Servers of others measured beside ours: `usual` are FastAPI and BentoML, `all` adds FastAPI with TensorFlow. */
export type WantedPeers = 'none' | 'usual' | 'all';

export interface BenchOptions {
  only: ReadonlySet<BenchName>;
  /** Rounds; each measures everything that is compared, side by side. */
  runs: number;
  quick: boolean;
  json: string;
  dataDir: string;
  distDir: string;
  /** Folder of photos, a sub-folder a class; drawn ones without it. */
  images: string | undefined;
  peers: WantedPeers;
  /** Photos whose features `database` stores. */
  databaseImages: number;
}

export const usage = `Measures Dandelion on this machine. Ratios are between things measured side by side.

  npm run bench                        everything, on drawn photos
  npm run bench -- --quick             the same, shorter: about two minutes
  npm run bench -- --only predict,cold-start

  --only NAMES    some of: ${benchNames.join(', ')}
  --images DIR    photos to measure with, a sub-folder a class
  --peers         also FastAPI and BentoML with the same model (needs python3 and a package index)
  --peers=all     and FastAPI with TensorFlow
  --database-images N   photos that database stores features of (default 10000; 2000 with --quick)
  --runs N        rounds, whose medians are shown (default 5; 2 with --quick)
  --json FILE     write the figures as JSON (default .data/bench.json)
  --data DIR      keep model, photos and the peers' packages here (default .data/bench)
  --dist DIR      the built functions (default dist)
  --help          this text
`;

const flags = {
  only: { type: 'string' },
  images: { type: 'string' },
  peers: { type: 'string', default: 'none' },
  runs: { type: 'string' },
  'database-images': { type: 'string' },
  quick: { type: 'boolean', default: false },
  json: { type: 'string', default: '.data/bench.json' },
  data: { type: 'string', default: '.data/bench' },
  dist: { type: 'string', default: 'dist' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

const schema = z.object({
  only: z
    .string()
    .transform((text) => text.split(',').map((name) => name.trim()))
    .pipe(z.array(z.enum(benchNames)).min(1))
    .default([...benchNames]),
  runs: z.coerce.number().int().min(1).max(100).optional(),
  'database-images': z.coerce.number().int().min(100).max(1_000_000).optional(),
  peers: z.enum(['none', 'usual', 'all']),
});

/**
 * Reads the command line of `npm run bench`.
 *
 * @throws DandelionError `bad-config` for what is unknown or out of range
 */
export function readOptions(words: readonly string[]): BenchOptions | 'help' {
  const given = parse(words);
  if (given.help) return 'help';
  const parsed = schema.safeParse(given);
  if (!parsed.success) {
    const faults = parsed.error.issues.map((issue) => `--${issue.path[0]?.toString()}: ${issue.message}`);
    throw wrong(faults.join('; '));
  }
  const { only, peers, runs = given.quick ? 2 : 5 } = parsed.data;
  const databaseImages = parsed.data['database-images'] ?? (given.quick ? 2000 : 10_000);
  const dataDir = resolve(given.data);
  return {
    only: new Set(only),
    runs,
    quick: given.quick,
    json: resolve(given.json),
    dataDir,
    distDir: resolve(given.dist),
    images: given.images === undefined ? undefined : resolve(given.images),
    peers,
    databaseImages,
  };
}

function parse(words: readonly string[]) {
  try {
    // An option that takes a value or none is not known to parseArgs.
    const args = words.map((word) => (word === '--peers' ? '--peers=usual' : word));
    return parseArgs({ args, options: flags, allowPositionals: false }).values;
  } catch (error) {
    throw wrong(error instanceof Error ? error.message : String(error));
  }
}

function wrong(why: string): DandelionError {
  return new DandelionError(
    'bad-config',
    `${why.replace(/\.?$/, '.')} \`npm run bench -- --help\` lists the options.`,
  );
}
