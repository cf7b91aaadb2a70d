import { join, resolve } from 'node:path';
import { preparePython } from '../../local/python-environment.ts';

/** DAGs, plugins and their tests. */
export const airflowDir = resolve(import.meta.dirname, '../../../airflow');

/** The interpreter of an environment with the pins of Airflow and of its tests. */
export function prepareAirflow(): Promise<string> {
  return preparePython({
    requirements: [join(airflowDir, 'requirements.txt'), join(airflowDir, 'tests/requirements.txt')],
    atLeast: [3, 11],
    purpose: 'Airflow',
    say: (sentence) => void process.stderr.write(`${sentence}\n`),
  });
}

/**
 * Settings of a private Airflow whose functions are those behind a gateway.
 *
 * @param home folder of its database, logs and configuration
 * @param gatewayUrl address of the local platform
 */
export function airflowEnv(home: string, gatewayUrl: string): Record<string, string> {
  const gateway = new URL(gatewayUrl);
  const template = { url_template: `${gateway.origin}/function/{name}` };
  return {
    AIRFLOW_HOME: home,
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
  };
}

function bundle(name: string, folder: string) {
  const classpath = 'airflow.dag_processing.bundles.local.LocalDagBundle';
  return { name, classpath, kwargs: { path: join(airflowDir, folder) } };
}
