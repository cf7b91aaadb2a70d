import { type ParseArgsConfig, parseArgs } from 'node:util';
import { DandelionError } from '../errors.ts';

/** As `parseArgs` of Node. @throws DandelionError `bad-config` for what it does not know */
export function readWords<Config extends ParseArgsConfig>(
  config: Config,
): ReturnType<typeof parseArgs<Config>> {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new DandelionError('bad-config', error instanceof Error ? error.message : String(error));
  }
}

/** @throws DandelionError `bad-config` for anything but a whole number of at least that much */
export function wholeNumber(option: string, text: string, least: number): number {
  if (/^\d+$/.test(text) && Number(text) >= least) return Number(text);
  throw new DandelionError('bad-config', `--${option} ${text}: give a whole number of at least ${least}.`);
}
