import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { startPlatform } from '../../local/platform.ts';
import { drawFolder, quickPipelineEnv } from '../../local/testing-pipelines.ts';
import { airflowDir, airflowEnv, prepareAirflow } from './environment.ts';
import { runPython } from './python.ts';

/**
 * The tests of `airflow/tests` against functions of this platform, without an Airflow that runs.
 *
 * @param words further parameters of pytest
 * @returns the exit code
 */
export async function runTests(folder: string, words: string[]): Promise<number> {
  const python = await prepareAirflow();
  const photos = join(folder, 'photos');
  await drawFolder(join(photos, 'good'), { dandelion: 20, grass: 20 }, 1);
  await drawFolder(join(photos, 'one-class'), { grass: 20 }, 100);
  const env = { ...(await quickPipelineEnv(folder)), RECONCILE_GRACE_MS: '0' };
  const platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
  try {
    const settings = {
      ...airflowEnv(join(folder, 'airflow'), platform.gatewayUrl),
      DANDELION_TEST_PHOTOS: pathToFileURL(join(photos, 'good')).href,
      DANDELION_TEST_ONE_CLASS: pathToFileURL(join(photos, 'one-class')).href,
      DANDELION_TEST_GATEWAY: new URL(platform.gatewayUrl).origin,
    };
    const migrated = await runPython(python, ['-m', 'airflow', 'db', 'migrate'], settings);
    if (migrated !== 0) return migrated;
    return await runPython(python, ['-m', 'pytest', '-q', join(airflowDir, 'tests'), ...words], settings);
  } finally {
    await platform.stop();
  }
}
