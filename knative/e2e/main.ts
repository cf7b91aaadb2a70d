/** `npm run test:e2e`: the product on a real Knative, by what a user of it would do and see. */
import { writeFile } from 'node:fs/promises';
import { readWords, wholeNumber } from '../../shared/cli/command-line.ts';
import { DandelionError, toDandelionError } from '../../shared/errors.ts';
import { createLogger } from '../../shared/function/log.ts';
import { loadBackbone } from '../../shared/stores/backbones.ts';
import { drawPhoto } from '../../shared/vision/drawn.ts';
import { openTestCluster, type TestCluster } from './cluster.ts';
import { storePhotos } from './pipelines.ts';
import type { Stage, Suite } from './stage.ts';
import { apiOutage } from './stages/api-outage.ts';
import { dispatcherRestart, poison } from './stages/broker.ts';
import { chain } from './stages/chain.ts';
import { champion } from './stages/champion.ts';
import { chaos } from './stages/chaos.ts';
import { coldStart } from './stages/cold-start.ts';
import { feedback } from './stages/feedback.ts';
import { longTraining } from './stages/long.ts';
import { refusals } from './stages/refusals.ts';
import { rollout } from './stages/rollout.ts';
import { slowTraining } from './stages/slow-training.ts';
import { storeOutage } from './stages/store-outage.ts';
import { warm } from './stages/warm.ts';
import { formatRows, hasPassed, type Row, row } from './table.ts';
import { type Ingress, openIngress } from './traffic.ts';

/** In this order; the first one makes the model that the others work with. */
const stages: Record<string, Stage> = {
  ...{ chain, warm, 'cold-start': coldStart, 'store-outage': storeOutage, champion, feedback },
  ...{ rollout, refusals, 'api-outage': apiOutage },
  ...{ poison, dispatcher: dispatcherRestart, long: longTraining, slow: slowTraining, chaos },
};

const usage = `npm run test:e2e -- [stage ...]     all of: ${Object.keys(stages).join(', ')}
  --cycles N     cold starts of each kind (default 20)
  --chains N     pipelines whose pods are killed (default 3)
  --photos N     photos of each class (default 60)
  --long-minutes N   how long the training of the stage "slow" is to take as a Job (default 0: skipped)
  --json FILE    the table as JSON
KUBECONFIG names the cluster, E2E_NAMESPACE the namespace where the context names none. INGRESS_URL is the address of
Knative's ingress, where the hosts of Services do not resolve to it by themselves. E2E_PAUSE_API and E2E_RESUME_API are
commands that stop and continue the API server; without them the stage "api-outage" is skipped.
Exit code: 0 all that was looked at is as it should be, 1 something is not, or nothing was looked at although a cluster is
named; 2 wrong options or no Dandelion there.`;

async function prepare(cluster: TestCluster, photosEach: number): Promise<string> {
  // Pods have no pip: whoever runs this suite brings the weights into the bucket, once.
  await loadBackbone(cluster.objects, {}, { log: createLogger({ name: 'e2e', level: 'warn' }) });
  return storePhotos(cluster, photosEach, 1);
}

async function runStage(name: string, suite: Suite): Promise<Row[]> {
  suite.say(`\n${name}`);
  try {
    const stage = stages[name];
    if (stage === undefined) throw new DandelionError('bad-config', `There is no stage ${name}.\n\n${usage}`);
    return await stage(suite);
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    suite.say(`  ${error instanceof Error ? error.stack : reason}`);
    return [row(name, reason.slice(0, 100), 'comes to its end', false)];
  }
}

interface Options {
  names: string[];
  cycles: number;
  chains: number;
  photosEach: number;
  longMinutes: number;
  json: string | undefined;
}

/** @throws DandelionError `bad-config` for a stage, option or number that there is not */
function readOptions(words: string[]): Options | 'help' {
  const { values, positionals } = readWords({
    args: words,
    allowPositionals: true,
    options: {
      cycles: { type: 'string', default: '20' },
      chains: { type: 'string', default: '3' },
      photos: { type: 'string', default: '60' },
      'long-minutes': { type: 'string', default: '0' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const unknown = positionals.find((name) => stages[name] === undefined);
  if (unknown !== undefined)
    throw new DandelionError('bad-config', `There is no stage ${unknown}.\n\n${usage}`);
  return {
    names: positionals.length > 0 ? positionals : Object.keys(stages),
    cycles: wholeNumber('cycles', values.cycles, 1),
    chains: wholeNumber('chains', values.chains, 1),
    photosEach: wholeNumber('photos', values.photos, 1),
    longMinutes: wholeNumber('long-minutes', values['long-minutes'], 0),
    json: values.json,
  };
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function main(words: string[]): Promise<number> {
  const options = readOptions(words);
  if (options === 'help') {
    say(usage);
    return 0;
  }
  if (process.env.KUBECONFIG === undefined) {
    process.stderr.write(
      'SKIPPED: the end-to-end suite needs a cluster: set KUBECONFIG. Nothing was tested.\n',
    );
    // Where nobody reads this, it must not pass for a test.
    return process.env.CI === undefined ? 0 : 1;
  }
  const cluster = await openTestCluster();
  const ingress = openIngress(process.env.INGRESS_URL);
  try {
    const rows = await runStages(options, cluster, ingress);
    say(`\n${formatRows(rows)}`);
    if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(rows, null, 2)}\n`);
    return hasPassed(rows) ? 0 : 1;
  } finally {
    await ingress.close();
    await cluster.close();
  }
}

async function runStages(options: Options, cluster: TestCluster, ingress: Ingress): Promise<Row[]> {
  const { cycles, chains: chaosChains, photosEach, longMinutes } = options;
  say(`Photos and weights go into the bucket ${cluster.bucket} of namespace ${cluster.namespace} ...`);
  const photos = await prepare(cluster, photosEach);
  const suite: Suite = {
    ...{ cluster, ingress, say, photos, photo: await drawPhoto('dandelion', 100_001) },
    ...{ cycles, chaosChains, longMinutes },
  };
  const rows: Row[] = [];
  for (const name of options.names) rows.push(...(await runStage(name, suite)));
  return rows;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const { message, code } = toDandelionError(error);
  process.stderr.write(`${message}\n`);
  if (!(error instanceof DandelionError))
    process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`);
  process.exitCode = code === 'bad-config' ? 2 : 1;
}
