import { readConfig } from '../config.ts';
import { toDandelionError } from '../errors.ts';
import { closeDatabases } from '../stores/database.ts';
import { endComputations } from './compute.ts';
import { createLogger } from './log.ts';
import { createFunctionServer, type FunctionServer } from './server.ts';
import { startupSettings } from './settings.ts';
import type { FunctionModule } from './types.ts';

/**
 * The entry of a function's process: settings from the environment, a server, `init`, and a stop that loses nothing.
 *
 * It stops on SIGTERM, on SIGINT, and when the parent that started it with an IPC channel is gone; it ends with 0
 * then, and with 1 when it cannot start or meets an error that nobody caught. A parent hears
 * `{ listening: { port } }` as soon as probes are answered.
 */
export async function serveFunction(name: string, module: FunctionModule): Promise<void> {
  const { LOG_LEVEL: level, INSTANCE_ID: instanceId } = readConfig(startupSettings);
  const env = { ...process.env, INSTANCE_ID: instanceId };
  const logger = createLogger({ name, level, instanceId });
  const fail = (message: string) => (thrown: unknown) => {
    const error = toDandelionError(thrown);
    logger.fatal(
      { err: error.cause instanceof Error ? error.cause : error, 'error.code': error.code },
      message,
    );
    process.exit(1);
  };
  process.on('uncaughtException', fail('an error nobody caught'));
  process.on('unhandledRejection', fail('a rejection nobody caught'));
  try {
    const server = createFunctionServer(module, { name, env, logger });
    stopOnSignal(server, fail('the stop failed'));
    const { port } = await server.listen();
    if (process.connected) process.send?.({ listening: { port } });
    await server.init();
  } catch (error) {
    fail(`${name} cannot start: ${toDandelionError(error).message}`)(error);
  }
}

function stopOnSignal(server: FunctionServer, onFailure: (error: unknown) => void): void {
  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    server.log.info({ 'event.action': 'stop' }, `stopping: ${why}`);
    await server.close();
    await endComputations();
    await closeDatabases();
    server.log.info({ 'event.action': 'stop' }, 'stopped');
    process.exit(0);
  };
  const on = (why: string) => () => void stop(why).catch(onFailure);
  process.on('SIGTERM', on('SIGTERM'));
  process.on('SIGINT', on('SIGINT'));
  process.on('disconnect', on('the parent process is gone'));
}
