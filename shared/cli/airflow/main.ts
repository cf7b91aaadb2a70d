import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { DandelionError, toDandelionError } from '../../errors.ts';
import { exitCodeOf } from '../report.ts';
import { runTests } from './dag-tests.ts';
import { runScenarios } from './scenarios.ts';

/**
 * `npm run test:airflow`: the DAGs on a private Airflow against the real functions; with `--real`, under scheduler,
 * triggerer and API server, which are killed meanwhile.
 *
 * @returns the exit code
 */
async function main(words: string[]): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-airflow-'));
  try {
    if (words[0] !== '--real') return await runTests(folder, words);
    return await runScenarios(folder, readOptions(words));
  } catch (error) {
    process.stderr.write(`${toDandelionError(error).message}\n`);
    return exitCodeOf(error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** @throws DandelionError `bad-config` */
function readOptions(words: string[]) {
  try {
    const { values } = parseArgs({
      args: words,
      options: {
        real: { type: 'boolean' },
        /** Folder of photos, a folder a class, instead of drawn ones. */
        photos: { type: 'string' },
        /** Of Airflow's API server. */
        port: { type: 'string' },
        /** Only scenarios whose name has this in it. */
        only: { type: 'string' },
        /** Leaves everything running at the end, until Ctrl-C. */
        stay: { type: 'boolean', default: false },
      },
    });
    const { photos, port, only, stay } = values;
    return {
      ...{ only, stay },
      photos: photos === undefined ? undefined : resolve(photos),
      port: port === undefined ? undefined : Number(port),
    };
  } catch (cause) {
    throw new DandelionError('bad-config', `test:airflow --real: ${(cause as Error).message}`, { cause });
  }
}

process.exitCode = await main(process.argv.slice(2));
