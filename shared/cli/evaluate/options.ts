import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';

export interface EvaluateOptions {
  /** Folder of photos, a sub-folder a class. */
  images: string;
  folds: number;
  /** Repeats of the cross-validation, each with folds of its own. */
  seeds: number;
  /** Answer the held-out photos also dark, blurred and the like. */
  corruptions: boolean;
  /** Folder of photos of none of the classes. */
  others: string | undefined;
  json: string | undefined;
  /** Where the page of doubtful labels goes. */
  doctor: string | undefined;
  /** The backbone is kept in its object store. */
  dataDir: string;
}

export const usage = `Cross-validates the training on your photos: how often it is right on photos it has not seen, with the interval,
and what it gains over a plain head on the same folds.

  npm run evaluate -- --images DIR    photos, a sub-folder a class

  --folds N      parts held out in turn (default 5)
  --seeds N      repeats, each with folds of its own (default 6)
  --corruptions  answer the held-out photos dark, blurred, small and the like too: how it may do on photos unlike these
  --others DIR   photos of none of the classes: how many of them are answered unknown
  --doctor FILE  write a page with thumbnails of what to look at: labels that models not trained on the photo contradict,
                 near-duplicates under different labels, files that cannot be used
  --json FILE    write everything as JSON
  --data DIR     keep the backbone here (default .data)
  --help         this text

BACKBONE_URI names another backbone, or none; BACKBONE_PRECISION=float32 computes in floats. Exit code: 0 measured, 2 bad input, 1 anything else.
`;

const flags = {
  images: { type: 'string' },
  folds: { type: 'string' },
  seeds: { type: 'string' },
  corruptions: { type: 'boolean', default: false },
  others: { type: 'string' },
  json: { type: 'string' },
  doctor: { type: 'string' },
  data: { type: 'string', default: '.data' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

const schema = z.object({
  images: z.string('give the folder of your photos').min(1),
  folds: z.coerce.number().int().min(2).max(50).default(5),
  seeds: z.coerce.number().int().min(1).max(100).default(6),
});

/**
 * Reads the command line of `npm run evaluate`.
 *
 * @param folder where the person typed it: npm runs scripts in the project's folder and tells where it was called
 * @throws DandelionError `bad-config` for what is unknown, missing or out of range
 */
export function readOptions(
  words: readonly string[],
  folder = process.env.INIT_CWD || process.cwd(),
): EvaluateOptions | 'help' {
  const given = parse(words);
  if (given.help) return 'help';
  const parsed = schema.safeParse(given);
  if (!parsed.success) {
    throw wrong(parsed.error.issues.map((issue) => `--${issue.path.join('.')}: ${issue.message}`).join('; '));
  }
  const { images, folds, seeds } = parsed.data;
  return {
    images: resolve(folder, images),
    folds,
    seeds,
    corruptions: given.corruptions,
    others: given.others === undefined ? undefined : resolve(folder, given.others),
    json: given.json === undefined ? undefined : resolve(folder, given.json),
    doctor: given.doctor === undefined ? undefined : resolve(folder, given.doctor),
    dataDir: resolve(given.data === flags.data.default ? '.' : folder, given.data),
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({ args: [...words], options: flags, allowPositionals: false }).values;
  } catch (error) {
    throw wrong(error instanceof Error ? error.message : String(error));
  }
}

function wrong(why: string): DandelionError {
  return new DandelionError(
    'bad-config',
    `${why.replace(/\.?$/, '.')} \`npm run evaluate -- --help\` lists the options.`,
  );
}
