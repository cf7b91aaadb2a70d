import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { DandelionError, toDandelionError } from '../errors.ts';
import { digestOf } from '../events.ts';
import { type Platform, startPlatform } from '../local/platform.ts';
import { drawFolder, quickPipelineEnv } from '../local/testing-pipelines.ts';
import { exitCodeOf } from './report.ts';

const airflowDir = resolve(import.meta.dirname, '../../airflow');
const leastPython = 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)';
const testPackages = ['pytest==9.2.0'];

/** `npm run test:airflow`: the DAGs on a private Airflow against the real functions. @returns the exit code */
async function main(words: string[]): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'dandelion-airflow-'));
  let platform: Platform | undefined;
  try {
    const python = await preparePython();
    const photos = join(folder, 'photos');
    await drawFolder(join(photos, 'good'), { dandelion: 20, grass: 20 }, 1);
    await drawFolder(join(photos, 'one-class'), { grass: 20 }, 100);
    const env = await quickPipelineEnv(folder);
    platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
    const settings = airflowEnv(folder, platform.gatewayUrl);
    const migrated = await run(python, ['-m', 'airflow', 'db', 'migrate'], settings);
    return (
      migrated || (await run(python, ['-m', 'pytest', '-q', join(airflowDir, 'tests'), ...words], settings))
    );
  } catch (error) {
    process.stderr.write(`${toDandelionError(error).message}\n`);
    return exitCodeOf(error);
  } finally {
    await platform?.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** The interpreter of a virtual environment with our pins; made once for each list of pins. */
async function preparePython(): Promise<string> {
  const pins = join(airflowDir, 'requirements.txt');
  const digest = digestOf(await readFile(pins), ...testPackages).slice(0, 12);
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const venv = join(cache, 'dandelion', `airflow-${digest}`);
  const python = join(venv, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');
  const whole = join(venv, 'installed');
  if (existsSync(whole)) return python;
  const base = findPython();
  process.stderr.write(`Installing Airflow into ${venv}: about a minute, once ...\n`);
  await mkdir(cache, { recursive: true });
  await must(base, ['-m', 'venv', '--clear', venv]);
  const wanted = ['-r', pins, ...testPackages];
  if (spawnSync('uv', ['--version']).status === 0) {
    await must('uv', ['pip', 'install', '--quiet', '--python', python, ...wanted]);
  } else {
    await must(python, ['-m', 'pip', 'install', '--quiet', ...wanted]);
  }
  // Without compiled modules every task's process would compile Airflow again.
  await must(python, ['-m', 'compileall', '-q', join(venv, 'lib')]);
  await writeFile(whole, '');
  return python;
}

function findPython(): string {
  const names = ['python3.11', 'python3.12', 'python3.13', 'python3', 'python'];
  const found = names.find((name) => spawnSync(name, ['-c', leastPython]).status === 0);
  if (found !== undefined) return found;
  throw new DandelionError(
    'bad-config',
    'The tests of Airflow need Python 3.11 or newer: install it from https://www.python.org and try again.',
  );
}

function airflowEnv(folder: string, gatewayUrl: string): Record<string, string> {
  const photos = (name: string) => pathToFileURL(join(folder, 'photos', name)).href;
  const gateway = new URL(gatewayUrl);
  const template = { url_template: `${gateway.origin}/function/{name}` };
  return {
    AIRFLOW_HOME: join(folder, 'airflow'),
    AIRFLOW__CORE__DAGS_FOLDER: join(airflowDir, 'dags'),
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST: JSON.stringify([
      bundle('dags-folder', 'dags'),
      bundle('test-dags', 'tests/dags'),
    ]),
    AIRFLOW__CORE__PLUGINS_FOLDER: join(airflowDir, 'plugins'),
    AIRFLOW__CORE__LOAD_EXAMPLES: 'False',
    PYTHONPATH: [join(airflowDir, 'plugins'), join(airflowDir, 'dags')].join(
      process.platform === 'win32' ? ';' : ':',
    ),
    AIRFLOW_CONN_DANDELION: JSON.stringify({ conn_type: 'http', extra: template }),
    AIRFLOW_CONN_GATEWAY: JSON.stringify({ conn_type: 'http', host: gateway.origin }),
    DANDELION_TEST_PHOTOS: photos('good'),
    DANDELION_TEST_ONE_CLASS: photos('one-class'),
  };
}

function bundle(name: string, folder: string) {
  const classpath = 'airflow.dag_processing.bundles.local.LocalDagBundle';
  return { name, classpath, kwargs: { path: join(airflowDir, folder) } };
}

async function must(program: string, words: string[]): Promise<void> {
  const code = await run(program, words);
  if (code === 0) return;
  throw new DandelionError('bad-config', `${program} ${words.join(' ')} ended with ${code}.`);
}

async function run(program: string, words: string[], env: Record<string, string> = {}): Promise<number> {
  const { PYTHONDONTWRITEBYTECODE: _, ...surroundings } = process.env;
  const child = spawn(program, words, {
    cwd: airflowDir,
    env: { ...surroundings, ...env },
    stdio: 'inherit',
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}

process.exitCode = await main(process.argv.slice(2));
