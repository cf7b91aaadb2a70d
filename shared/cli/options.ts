import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { modelName } from '../config.ts';
import { DandelionError } from '../errors.ts';

/** Where the photos come from, as the command line says it. */
export type WantedSource =
  | { kind: 'images'; path: string }
  | { kind: 'manifest'; path: string }
  | { kind: 'manifest'; url: URL }
  | { kind: 'archive'; path: string }
  | { kind: 'sample' }
  | { kind: 'default' };

export interface StartOptions {
  source: WantedSource;
  dataDir: string;
  port: number;
  once: boolean;
  json: string | undefined;
  model: string;
  /** Whether to bring up an MLflow server. */
  mlflow: boolean;
}

export const usage = `Trains a classifier on photos and serves it, all on this machine.

  npm start                            the 400 public photos of dandelions and grass
  npm start -- --images DIR            a folder of photos, a sub-folder a class
  npm start -- --manifest FILE|URL     a CSV with the header url,label; paths relative to the file allowed
  npm start -- --archive FILE          a zip, tar or tar.gz with a folder a class
  npm start -- --sample                drawn photos, needs no network

  --data DIR      keep everything here (default .data)
  --port N        of the page and the functions (default 8080; 0: any free one)
  --model NAME    name of the model (default dandelion)
  --mlflow        track runs in MLflow: brings a server up in a private Python environment
  --json FILE     write the result as JSON
  --once          leave when the model is trained and has answered, instead of serving on
  --help          this text

Exit code: 0 a model serves and answered, 2 bad input or configuration, 3 the model was refused by the gate and
there is no other, 1 anything else.
`;

const flags = {
  images: { type: 'string' },
  manifest: { type: 'string' },
  archive: { type: 'string' },
  sample: { type: 'boolean', default: false },
  data: { type: 'string', default: '.data' },
  port: { type: 'string', default: '8080' },
  model: { type: 'string' },
  json: { type: 'string' },
  mlflow: { type: 'boolean', default: false },
  once: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/**
 * Reads the command line of `npm start`.
 *
 * @returns the options, or `help`
 * @throws DandelionError `bad-config` for what is unknown, contradictory or does not exist
 */
export async function readOptions(
  words: string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<StartOptions | 'help'> {
  const given = parse(words);
  if (given.help) return 'help';
  const name = given.model ?? env.MODEL_NAME ?? 'dandelion';
  const model = modelName.safeParse(name);
  if (!model.success) throw wrong(`"${name}" is no name for a model: ${model.error.issues[0]?.message}.`);
  const port = Number(given.port);
  if (!/^\d+$/.test(given.port) || port > 65_535)
    throw wrong(`--port ${given.port} is not a port: use 0 to 65535.`);
  return {
    source: await readSource(given, typedIn(env)),
    dataDir: resolve(given.data === flags.data.default ? '.' : typedIn(env), nonEmpty('data', given.data)),
    port,
    once: given.once,
    json: given.json === undefined ? undefined : resolve(typedIn(env), nonEmpty('json', given.json)),
    model: model.data,
    mlflow: given.mlflow,
  };
}

/** Where the report goes, even when the rest of the command line is wrong. */
export function reportPathIn(words: string[]): string | undefined {
  const { json } = parseArgs({ args: words, options: flags, strict: false }).values;
  return typeof json === 'string' && json.trim() !== '' ? resolve(typedIn(process.env), json) : undefined;
}

function parse(words: string[]) {
  try {
    return parseArgs({ args: words, options: flags, allowPositionals: false }).values;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw wrong(`${why.replace(/\.?$/, '.')} \`npm start -- --help\` lists the options.`);
  }
}

async function readSource(given: ReturnType<typeof parse>, folder: string): Promise<WantedSource> {
  const named = (['images', 'manifest', 'archive', 'sample'] as const).filter(
    (name) => given[name] !== undefined && given[name] !== false,
  );
  if (named.length > 1) {
    throw wrong(`--${named.join(' and --')} name different photos: give one of them.`);
  }
  if (given.images !== undefined) {
    return {
      kind: 'images',
      path: await existing('images', resolve(folder, nonEmpty('images', given.images)), 'folder'),
    };
  }
  if (given.manifest !== undefined) {
    if (/^https?:\/\//i.test(given.manifest)) return { kind: 'manifest', url: addressOf(given.manifest) };
    return {
      kind: 'manifest',
      path: await existing('manifest', resolve(folder, nonEmpty('manifest', given.manifest)), 'file'),
    };
  }
  if (given.archive !== undefined) {
    return {
      kind: 'archive',
      path: await existing('archive', resolve(folder, nonEmpty('archive', given.archive)), 'file'),
    };
  }
  return { kind: given.sample ? 'sample' : 'default' };
}

function addressOf(text: string): URL {
  const url = URL.parse(text);
  if (url !== null) return url;
  throw wrong(`--manifest ${text} is not an address.`);
}

/** Where the person was when typing: npm runs scripts in the project's folder and tells where it was called. */
function typedIn(env: Readonly<Record<string, string | undefined>>): string {
  return env.INIT_CWD || process.cwd();
}

async function existing(option: string, absolute: string, what: 'file' | 'folder'): Promise<string> {
  const found = await stat(absolute).catch(() => undefined);
  if (found === undefined) throw wrong(`--${option} ${absolute}: there is no such ${what}.`);
  if (what === 'folder' ? found.isDirectory() : found.isFile()) return absolute;
  throw wrong(`--${option} ${absolute} is not a ${what}.`);
}

function nonEmpty(option: string, value: string): string {
  if (value.trim() !== '') return value;
  throw wrong(`--${option} needs a value.`);
}

function wrong(sentence: string): DandelionError {
  return new DandelionError('bad-config', sentence);
}
