import { once } from 'node:events';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { type Environment, modelName, objectSettings, readConfig, storeSettings } from '../config.ts';
import { DandelionError, toDandelionError } from '../errors.ts';
import { createLogger } from '../function/log.ts';
import { isLoopback } from '../function/settings.ts';
import { closeDatabases, type Database, openDatabase } from '../stores/database.ts';
import { openMlflowClient } from '../stores/mlflow-client.ts';
import { type ObjectStore, openObjects } from '../stores/objects.ts';
import { releaseEveryLease } from '../stores/steps.ts';
import { mlflowPage } from '../stores/tracking-mlflow.ts';
import { hasErrorCode } from '../system-errors.ts';
import type { Broker } from './broker.ts';
import { makeDataDir } from './data-folder.ts';
import { lockFolder } from './lock.ts';
import { openLogFile } from './log-file.ts';
import { type MlflowOptions, startMlflow } from './mlflow.ts';
import type { Pipeline } from './pipeline.ts';
import { startPostgres } from './postgres.ts';
import { openProcesses, type Processes } from './processes.ts';
import { reconcile } from './reconcile.ts';
import { startTraffic } from './traffic.ts';

export interface PlatformOptions {
  /** Folder of everything the platform keeps. */
  dataDir: string;
  /** Port of the gateway; 0 for any free one. */
  port: number;
  /** Settings over those of the surroundings; functions get them too. */
  env?: Environment;
  /** Folder of the built functions; default `dist`. */
  distDir?: string;
  /** Folder of the Trigger manifests; default the ones that ship. */
  triggersDir?: string;
  /** Bring up an MLflow server, unless MLFLOW_TRACKING_URI names one. */
  mlflow?: Pick<MlflowOptions, 'say' | 'signal'>;
  /** A function without requests for this long is stopped; default 60 s. */
  idleTimeoutMs?: number;
}

/** Everything on one machine, running. */
export interface Platform {
  gatewayUrl: string;
  broker: Broker;
  processes: Processes;
  pipeline: Pipeline;
  database: Database;
  databaseUrl: string;
  objects: ObjectStore;
  /** MLflow's page of experiments; undefined where runs are tracked in a folder. */
  mlflowUrl: string | undefined;
  modelName: string;
  /** Where functions and platform write their logs. */
  logsDir: string;
  /** Functions finish or hand back their work, then everything ends, the database last. Nothing is left running. */
  stop(): Promise<void>;
}

const settingsSchema = z.object({
  HOST: z.string().default('127.0.0.1'),
  DANDELION_TOKEN: z.string().min(16, 'use at least 16 characters').optional(),
  MODEL_NAME: modelName.default('dandelion'),
  DATABASE_URL: storeSettings.shape.DATABASE_URL.optional(),
  MLFLOW_TRACKING_URI: storeSettings.shape.MLFLOW_TRACKING_URI,
  MLFLOW_TRACKING_USERNAME: storeSettings.shape.MLFLOW_TRACKING_USERNAME,
  MLFLOW_TRACKING_PASSWORD: storeSettings.shape.MLFLOW_TRACKING_PASSWORD,
  MLFLOW_TRACKING_TOKEN: storeSettings.shape.MLFLOW_TRACKING_TOKEN,
  LOG_LEVEL: z.string().default('info'),
});

const root = resolve(import.meta.dirname, '../..');
/** Ctrl-C should not take long: a step that is not done by then is handed back and goes on at the next start. */
const functionGraceMs = 5000;
const killAfterMs = 15_000;

/**
 * Starts database, functions on demand, broker and gateway, and takes up what an earlier start left undone.
 * With DATABASE_URL set that server is used instead of the embedded one, with S3_ENDPOINT that one instead of a folder.
 *
 * @throws DandelionError `bad-config` (folder in use, nothing built, settings), `port-in-use`, `database-unavailable`
 */
export async function startPlatform(options: PlatformOptions): Promise<Platform> {
  const dataDir = resolve(options.dataDir);
  const env = { ...process.env, ...options.env };
  const settings = readConfig(settingsSchema, env);
  await makeDataDir(dataDir);
  const logsDir = join(dataDir, 'logs');
  // In reverse order of starting, as far as the start came.
  const closers: (() => Promise<void>)[] = [];
  const stop = async () => {
    for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close();
  };
  try {
    const lock = await lockFolder(dataDir, 'The data folder');
    closers.push(() => lock.release());
    await checkPort(options.port, settings.HOST);
    const logger = platformLogger(logsDir, settings.LOG_LEVEL);
    const mlflow = await openMlflow(settings, options, logger, closers);
    const databaseUrl = settings.DATABASE_URL ?? (await startDatabase(dataDir, logger, closers));
    const database = await openDatabase(databaseUrl).catch((error: unknown) => {
      throw settings.DATABASE_URL === undefined ? error : asConfiguration(error);
    });
    closers.push(closeDatabases);
    // Who has the folder has its database, and every function that worked on it: none is left of an earlier start.
    if (settings.DATABASE_URL === undefined) await releaseEveryLease(database);
    const stores = { OBJECTS_DIR: join(dataDir, 'objects'), TRACKING_DIR: join(dataDir, 'tracking') };
    const model = settings.MODEL_NAME;
    const grace = { GRACE_PERIOD_MS: String(functionGraceMs) };
    const functionEnv = {
      ...{ ...grace, ...stores, ...env },
      ...{ DATABASE_URL: databaseUrl, MODEL_NAME: model, MLFLOW_TRACKING_URI: mlflow?.trackingUri },
    };
    const objects = openObjects(readConfig(objectSettings, functionEnv));
    const running = await startFunctions({
      ...options,
      dataDir,
      logsDir,
      settings,
      functionEnv,
      database,
      objects,
      logger,
    });
    closers.push(running.stop);
    await reconcile(database, running.broker, logger);
    return {
      ...running,
      ...{ database, databaseUrl, objects, mlflowUrl: mlflow?.url, modelName: model, logsDir },
      stop: onceOnly(stop),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface FunctionsOptions extends PlatformOptions {
  logsDir: string;
  settings: z.output<typeof settingsSchema>;
  functionEnv: Environment;
  database: Database;
  objects: ObjectStore;
  logger: Logger;
}

/** Functions, and broker and gateway before them. */
async function startFunctions(options: FunctionsOptions) {
  const { dataDir, logsDir, settings, functionEnv, database, objects, logger, idleTimeoutMs } = options;
  const distDir = options.distDir ?? join(root, 'dist');
  const token = settings.DANDELION_TOKEN;
  const env: Record<string, string | undefined> = { ...functionEnv };
  const processes = openProcesses({
    distDir,
    logsDir,
    env,
    logger,
    db: database,
    graceMs: killAfterMs,
    ...(idleTimeoutMs === undefined ? {} : { idleTimeoutMs }),
  });
  if ((await processes.names()).length === 0) {
    throw new DandelionError(
      'bad-config',
      `There are no built functions in ${distDir}: run \`npm run build\`.`,
    );
  }
  const traffic = await startTraffic({
    ...{ processes, dataDir, database, objects, logger, token, port: options.port },
    ...{ model: settings.MODEL_NAME, host: settings.HOST },
    triggersDir: options.triggersDir ?? join(root, 'knative/base/eventing'),
  });
  // Known only now, and no function has started yet: what they tell, they tell this broker.
  env.K_SINK ??= `${traffic.gatewayUrl}/broker`;
  return { ...traffic, processes };
}

/** A server that someone named and that does not answer is for that person to mend, not to be waited for. */
function asConfiguration(thrown: unknown, advice = ''): DandelionError {
  const { code, message } = toDandelionError(thrown);
  const sentence = code === 'bad-config' ? message : `${message} ${advice}`.trim();
  return new DandelionError('bad-config', sentence, { cause: thrown });
}

async function startDatabase(
  dataDir: string,
  logger: Logger,
  closers: (() => Promise<void>)[],
): Promise<string> {
  const server = await startPostgres({ dataDir: join(dataDir, 'postgres'), logger });
  closers.push(server.stop);
  return server.url;
}

/** The MLflow server that someone named, once it has answered, or one of this platform's own if it is wanted. */
async function openMlflow(
  settings: z.output<typeof settingsSchema>,
  { dataDir, mlflow }: PlatformOptions,
  logger: Logger,
  closers: (() => Promise<void>)[],
): Promise<{ trackingUri: string; url: string } | undefined> {
  const { MLFLOW_TRACKING_URI } = settings;
  if (MLFLOW_TRACKING_URI !== undefined) {
    const client = openMlflowClient({ ...settings, MLFLOW_TRACKING_URI }, { patienceMs: 0 });
    await client.check().catch((error: unknown) => {
      throw asConfiguration(error, 'Start that server, or correct MLFLOW_TRACKING_URI.');
    });
    return { trackingUri: MLFLOW_TRACKING_URI, url: mlflowPage(client.http.url, 'experiments') };
  }
  if (mlflow === undefined) return undefined;
  const server = await startMlflow({ dataDir: join(dataDir, 'mlflow'), logger, ...mlflow });
  closers.push(server.stop);
  return { trackingUri: server.url, url: mlflowPage(server.url, 'experiments') };
}

function platformLogger(logsDir: string, level: string): Logger {
  const file = openLogFile(join(logsDir, 'platform.log'));
  return createLogger({ name: 'platform', level, destination: { write: (line) => file.append(line) } });
}

/** Known before the database starts: a taken port is the commonest reason not to start. */
async function checkPort(port: number, host: string): Promise<void> {
  const server = createServer().listen(port, isLoopback(host) ? '127.0.0.1' : host);
  try {
    await once(server, 'listening');
  } catch (error) {
    if (!hasErrorCode(error, 'EADDRINUSE')) return;
    throw new DandelionError(
      'port-in-use',
      `Port ${port} is taken by another program: stop it or use --port N.`,
      { cause: error },
    );
  }
  server.close();
  await once(server, 'close');
}

/** Two callers of `stop` wait for the same end. */
function onceOnly(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= run();
    return running;
  };
}
