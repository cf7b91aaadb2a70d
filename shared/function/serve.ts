import { readConfig } from '../config.ts';
import { toDandelionError } from '../errors.ts';
import { closeDatabases } from '../stores/database.ts';
import { endComputations } from './compute.ts';
import { jobSettings, runJob } from './job.ts';
import { createLogger } from './log.ts';
import { createFunctionServer, type FunctionServer } from './server.ts';
import { BAD_CONFIG_EXIT, startupSettings } from './settings.ts';
import { openTelemetry, type Telemetry } from './telemetry.ts';
import type { FunctionModule } from './types.ts';

/** How long an exit waits for Elasticsearch to take the last lines. */
const LAST_LINES_MS = 2000;
const LAST_WORDS_MS = 1000;

/**
 * The entry of a function's process: settings from the environment, a server, `init`, and a stop that loses nothing.
 *
 * It stops on SIGTERM, on SIGINT, and when the parent that started it with an IPC channel is gone; it ends with 0
 * then, with {@link BAD_CONFIG_EXIT} when its settings are wrong, and with 1 when it cannot start otherwise or meets an
 * error that nobody caught. A parent hears `{ listening: { port } }` as soon as probes are answered. Where a JobSink left
 * an event, it works on that one alone and ends with the exit code of {@link runJob}, or with 1 when it cannot.
 */
export async function serveFunction(name: string, module: FunctionModule): Promise<void> {
  const { LOG_LEVEL: level, INSTANCE_ID: instanceId } = readConfig(startupSettings);
  const env = { ...process.env, INSTANCE_ID: instanceId };
  const isJob = readConfig(jobSettings).K_EVENT_PATH !== undefined;
  const ownLog = createLogger({ name, level, instanceId });
  let logger = ownLog;
  let telemetry: Telemetry | undefined;
  const fail = (message: string) => (thrown: unknown) => {
    const error = toDandelionError(thrown);
    logger.fatal(
      { err: error.cause instanceof Error ? error.cause : error, 'error.code': error.code },
      message,
    );
    // By 2 a job says that its event lies with the dead letters, and so is not to be brought again.
    const exitCode = error.code === 'bad-config' && !isJob ? BAD_CONFIG_EXIT : 1;
    if (telemetry === undefined) process.exit(exitCode);
    void telemetry.close(AbortSignal.timeout(LAST_WORDS_MS)).finally(() => process.exit(exitCode));
  };
  process.on('uncaughtException', fail('an error nobody caught'));
  process.on('unhandledRejection', fail('a rejection nobody caught'));
  try {
    telemetry = openTelemetry({ name, env, instanceId, log: ownLog });
    if (telemetry?.copyLine !== undefined) {
      logger = createLogger({ name, level, instanceId, copyTo: telemetry.copyLine });
    }
    if (isJob) {
      const code = await runJob(module, { name, env, logger, telemetry, stopping: stopSignal() });
      await endProcess(code, telemetry);
      return;
    }
    const server = createFunctionServer(module, { name, env, logger, telemetry });
    stopOnSignal(server, telemetry, fail('the stop failed'));
    const { port } = await server.listen();
    if (process.connected) process.send?.({ listening: { port } });
    await server.init();
  } catch (error) {
    fail(`${name} cannot start: ${toDandelionError(error).message}`)(error);
  }
}

function stopOnSignal(
  server: FunctionServer,
  telemetry: Telemetry | undefined,
  onFailure: (error: unknown) => void,
): void {
  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    server.log.info({ 'event.action': 'stop' }, `stopping: ${why}`);
    await server.close();
    server.log.info({ 'event.action': 'stop' }, 'stopped');
    await endProcess(0, telemetry);
  };
  whenToldToStop((why) => void stop(why).catch(onFailure));
}

function stopSignal(): AbortSignal {
  const controller = new AbortController();
  whenToldToStop(() => controller.abort());
  return controller.signal;
}

function whenToldToStop(stop: (why: string) => void): void {
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));
  process.on('disconnect', () => stop('the parent process is gone'));
}

async function endProcess(code: number, telemetry: Telemetry | undefined): Promise<void> {
  await endComputations();
  await closeDatabases();
  await telemetry?.close(AbortSignal.timeout(LAST_LINES_MS));
  process.exit(code);
}
