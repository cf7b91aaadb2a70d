import { join } from 'node:path';
import { z } from 'zod';
import { count, type Environment, modelName, readConfig, storeSettings } from '../config.ts';
import { toDandelionError } from '../errors.ts';
import { createLogger } from '../function/log.ts';
import { closeDatabases, openDatabase } from '../stores/database.ts';
import { openObjects } from '../stores/objects.ts';
import { makeDataDir } from './data-folder.ts';
import { lockFolder } from './lock.ts';
import { reconcile } from './reconcile.ts';
import { addressFunctions, functionUrls } from './remote-functions.ts';
import { startTraffic } from './traffic.ts';

const gatewaySettings = storeSettings.extend({
  PORT: count().max(65_535).default(8080),
  HOST: z.string().default('127.0.0.1'),
  DANDELION_TOKEN: z.string().min(16, 'use at least 16 characters').optional(),
  MODEL_NAME: modelName.default('dandelion'),
  LOG_LEVEL: z.string().default('info'),
  FUNCTION_URLS: functionUrls,
  /** Where accepted events are kept until they are brought to their end: a volume. */
  DATA_DIR: z.string().min(1),
  /** Folder of the Trigger manifests; default the ones laid beside the bundle. */
  TRIGGERS_DIR: z.string().default(join(import.meta.dirname, 'eventing')),
});

/**
 * The local platform without its processes and its database: broker and gateway before functions that run in
 * containers of their own.
 *
 * @throws DandelionError `bad-config`, `port-in-use`, `database-unavailable`
 */
export async function startStandaloneGateway(
  env: Environment,
): Promise<{ url: string; stop(): Promise<void> }> {
  const settings = readConfig(gatewaySettings, env);
  const { DATA_DIR: dataDir, LOG_LEVEL: level, DANDELION_TOKEN: token } = settings;
  const logger = createLogger({ name: 'gateway', level });
  await makeDataDir(dataDir);
  const lock = await lockFolder(dataDir, 'The data folder');
  try {
    const database = await openDatabase(settings.DATABASE_URL);
    const traffic = await startTraffic({
      ...{ processes: addressFunctions(settings.FUNCTION_URLS), triggersDir: settings.TRIGGERS_DIR },
      ...{ dataDir, database, objects: openObjects(settings), model: settings.MODEL_NAME },
      ...{ port: settings.PORT, host: settings.HOST, token, logger },
    });
    await reconcile(database, traffic.broker, logger);
    logger.info({ 'event.action': 'start' }, `listening at ${traffic.gatewayUrl}`);
    return {
      url: traffic.gatewayUrl,
      async stop() {
        await traffic.stop();
        await closeDatabases();
        await lock.release();
      },
    };
  } catch (error) {
    await closeDatabases();
    await lock.release();
    throw error;
  }
}

/** The entry of the gateway's process: ends with 0 on SIGTERM and SIGINT, with 1 when it cannot start. */
export async function serveGateway(): Promise<void> {
  const logger = createLogger({ name: 'gateway', level: 'info' });
  try {
    const { stop } = await startStandaloneGateway(process.env);
    const end = () => void stop().finally(() => process.exit(0));
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, end);
    process.once('disconnect', end);
  } catch (thrown) {
    const error = toDandelionError(thrown);
    logger.fatal({ err: error, 'error.code': error.code }, `the gateway cannot start: ${error.message}`);
    process.exit(1);
  }
}
