import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runIdOf } from '../../events.ts';
import { readChain } from '../../local/pipeline.ts';
import { type Platform, startPlatform } from '../../local/platform.ts';
import { drawFolder, quickPipelineEnv } from '../../local/testing-pipelines.ts';
import { findStep, listRuns, type StepRun } from '../../stores/steps.ts';
import { airflowEnv, prepareAirflow } from './environment.ts';
import { type HeldPhotos, serveHeldPhotos } from './held-photos.ts';
import { type AirflowServer, chooseAddress, makeAirflow } from './server.ts';

export interface StageOptions {
  /** Folder of real photos, a folder a class; without it photos are drawn, and a small backbone looks at them. */
  photos?: string | undefined;
  /** Of the API server. */
  port?: number | undefined;
}

/** Everything a scenario plays on: the functions, an Airflow that runs, photos. */
export interface Stage {
  platform: Platform;
  airflow: AirflowServer;
  held: HeldPhotos;
  /** Addresses of folders: all photos, and those of a single class, which ingest refuses. */
  photosUri: string;
  oneClassUri: string;
  /** Folders of different photos, each good to train on. */
  shardUris: string[];
  /** Starts a run of `retrain` for a model of its own. */
  retrain(conf?: Record<string, unknown>): Promise<{ runId: string; model: string }>;
  /** What the ledger knows of a model's steps, by function. */
  stepsOf(model: string): Promise<Map<string, StepRun>>;
  close(): Promise<void>;
}

const SHARDS = 3;
/** Where links lead; nobody follows them. */
export const MLFLOW_PAGE = 'http://mlflow.invalid:5000';

/** Brings up the functions and Airflow. */
export async function setStage(folder: string, options: StageOptions): Promise<Stage> {
  const python = await prepareAirflow();
  const { photos, oneClass, shards } = await makeFolders(folder, options.photos);
  const held = await serveHeldPhotos(photos);
  const address = await chooseAddress(options.port);
  const quick = options.photos === undefined ? await quickPipelineEnv(folder) : {};
  const env = {
    ...quick,
    INGEST_FILE_ROOTS: `${folder},${photos}`,
    INGEST_ALLOWED_HOSTS: held.host,
    // Photos are held for as long as a scenario lasts.
    INGEST_TIMEOUT_MS: '600000',
    AIRFLOW_URL: address.url,
    AIRFLOW_USERNAME: address.user,
    AIRFLOW_PASSWORD: address.password,
    DRIFT_WINDOW: '60',
    DRIFT_RETRAIN_MIN_LABELS: '1',
    PREDICTION_LOG_FLUSH_MS: '500',
  };
  const platform = await startPlatform({ dataDir: join(folder, 'data'), port: 0, env });
  const close = async (airflow?: AirflowServer) => {
    held.close();
    await airflow?.stop();
    await platform.stop();
  };
  try {
    const settings = {
      ...airflowEnv(join(folder, 'airflow'), platform.gatewayUrl),
      // Runs are tracked in a folder; the links are only shown.
      MLFLOW_TRACKING_URI: MLFLOW_PAGE,
    };
    const airflow = await makeAirflow(python, settings, address);
    try {
      await airflow.start();
      for (const dag of ['retrain', 'on_request', 'monitor', 'backfill_images'])
        await airflow.api.awaitDag(dag);
    } catch (error) {
      await airflow.kill();
      throw error;
    }
    const photosUri = pathToFileURL(photos).href;
    return {
      ...{ platform, airflow, held, photosUri },
      oneClassUri: pathToFileURL(oneClass).href,
      shardUris: shards.map((shard) => pathToFileURL(shard).href),
      async retrain(conf = {}) {
        const model = `m${randomBytes(4).toString('hex')}`;
        const { runId, status, detail } = await airflow.api.trigger('retrain', {
          ...{ uri: photosUri, kind: 'folder', model },
          ...conf,
        });
        if (runId === undefined) throw new Error(`Airflow answered ${status}: ${detail}`);
        return { runId, model };
      },
      stepsOf: (model) => stepsOf(platform, model),
      close: () => close(airflow),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function makeFolders(folder: string, given: string | undefined) {
  const photos = given ?? join(folder, 'photos');
  if (given === undefined) await drawFolder(photos, { dandelion: 20, grass: 20 }, 1);
  const oneClass = join(folder, 'one-class');
  await drawFolder(oneClass, { grass: 20 }, 100);
  const shards = Array.from({ length: SHARDS }, (_, index) => join(folder, `shard-${index}`));
  for (const [index, shard] of shards.entries()) {
    await drawFolder(shard, { dandelion: 12, grass: 12 }, 1000 * (index + 1));
  }
  return { photos, oneClass, shards };
}

async function stepsOf({ database }: Platform, model: string): Promise<Map<string, StepRun>> {
  const ingested = (await listRuns(database, { function: 'ingest' })).find(
    ({ event }) => event.subject === model,
  );
  if (ingested === undefined) return new Map();
  const steps = new Map<string, StepRun>();
  for (const { function: name, event } of await readChain(database, ingested.event)) {
    if (event === undefined) break;
    const run = await findStep(database, name, runIdOf(name, event.source, event.id));
    if (run !== undefined) steps.set(name, run);
  }
  return steps;
}
