import { DandelionError } from '../errors.ts';
import { openDatabase } from '../stores/database.ts';
import { isStoreTrouble } from '../stores/objects.ts';
import { isDatabaseOutage } from '../stores/outage.ts';
import { pause } from './abort.ts';
import { createNotice } from './context.ts';
import { createStepRunner } from './durable.ts';
import type { Runtime } from './runtime.ts';
import type { Notice } from './types.ts';

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

/**
 * Opens the ledger and runs the module's `init`; then the function is ready. Stores that do not answer are waited for, as
 * long as INIT_PATIENCE_MS says: they may be started in the same minute, and a process that ends instead makes Knative
 * give its revision up for good.
 *
 * @param takesOver whether it also works on what other processes left
 * @throws DandelionError whatever a repeat does not mend, and what outlasts the patience
 */
export async function initialise(runtime: Runtime, takesOver: boolean): Promise<void> {
  const startedAt = performance.now();
  const sinceMs = () => performance.now() - startedAt;
  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
    try {
      await open(runtime);
      break;
    } catch (error) {
      const trouble = passingTrouble(error);
      if (trouble === undefined || sinceMs() > runtime.settings.INIT_PATIENCE_MS) throw error;
      runtime.waitsFor = trouble.message;
      runtime.log.warn({ err: trouble, 'error.code': trouble.code }, `not ready yet: ${trouble.message}`);
      await pause(waitMs, runtime.stopping);
      if (runtime.phase !== 'starting') return;
    }
  }
  if (runtime.phase !== 'starting') return;
  runtime.waitsFor = undefined;
  runtime.phase = 'ready';
  runtime.started.resolve();
  runtime.limits.watchEventLoop();
  if (takesOver) runtime.steps?.startSweep();
  const seconds = sinceMs() / 1000;
  runtime.metrics.initialised(seconds);
  const sinceStartMs = Math.round(process.uptime() * 1000);
  const fields = { 'event.action': 'init', 'event.duration': Math.round(seconds * 1e9), sinceStartMs };
  runtime.log.info(fields, 'ready');
}

/** Why a function that starts takes no requests yet. */
export function notReadyReason({ name, waitsFor }: Runtime): string {
  return `The function ${name} is still starting${waitsFor === undefined ? '' : `: ${waitsFor}`}`.replace(
    /\.?$/,
    '.',
  );
}

async function open(runtime: Runtime): Promise<void> {
  const { module, name, env, settings } = runtime;
  if (module.durable === true && runtime.steps === undefined) {
    if (settings.DATABASE_URL === undefined) {
      throw new DandelionError('bad-config', `${name} is a durable step: set DATABASE_URL for its ledger.`);
    }
    const db = await openDatabase(settings.DATABASE_URL);
    runtime.steps = createStepRunner({ ...runtime, db });
  }
  const emit = (notice: Notice) => runtime.notices.add(createNotice(name, notice));
  const { log, metrics } = runtime;
  await module.init?.({ functionName: name, env, log, emit, gauge: metrics.gauge });
}

/** The store that does not answer, where that is what an error comes from. */
function passingTrouble(error: unknown): DandelionError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (isStoreTrouble(cause) || isDatabaseOutage(cause)) return cause;
  }
  return undefined;
}
