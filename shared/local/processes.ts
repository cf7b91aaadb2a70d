import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import type { Database } from '../stores/database.ts';
import { listUnfinished, releaseLeases } from '../stores/steps.ts';
import { type FunctionEnd, type FunctionProcess, startFunctionProcess } from './function-process.ts';
import { openJobProcesses } from './job-processes.ts';
import { openLogFile } from './log-file.ts';

export interface ProcessesOptions {
  /** Folder with `{function}/index.mjs`. */
  distDir: string;
  /** Folder for `{function}.log`. */
  logsDir: string;
  /** Environment of every function. */
  env: Readonly<Record<string, string | undefined>>;
  logger: Logger;
  /** The ledger: leases of a process that ended are given back at once. */
  db?: Database;
  /** A function without requests for this long is stopped; default 60 s. */
  idleTimeoutMs?: number;
  /** From SIGTERM to SIGKILL; default 30 s. */
  graceMs?: number;
  /** Longest time to become ready; default 60 s. */
  startTimeoutMs?: number;
}

/** A function that will stay up until released. */
export interface Acquired {
  /** Base URL of its process. */
  url: string;
  release(): void;
}

/** The functions as processes: started by the first request, stopped when idle, started again after a crash. */
export interface Processes {
  /** Functions that are built. */
  names(): Promise<string[]>;
  /**
   * Gets a running process of a function, started if need be; many callers share one start.
   *
   * @throws DandelionError `not-found` for an unknown function, `upstream-unavailable` when it cannot be started
   */
  acquire(name: string): Promise<Acquired>;
  /**
   * Works on one event in a process of its own, and resolves with its end; absent where functions are somebody else's
   * to start.
   *
   * @throws DandelionError `not-found` for an unknown function
   */
  runJob?(name: string, event: Event): Promise<FunctionEnd>;
  /** Functions that run now. */
  running(): { name: string; processId: number; inFlight: number }[];
  /** Stops every process: what runs is finished or handed back. */
  stop(): Promise<void>;
}

/** What is known of one function. */
interface Slot {
  name: string;
  inFlight: number;
  current?: FunctionProcess;
  starting?: Promise<FunctionProcess>;
  stopping?: Promise<void>;
  /** What is done after the end of its last process. */
  aftermath?: Promise<void>;
  idleTimer?: NodeJS.Timeout;
  /** Crashes in a row. */
  crashes: number;
  /** Not started again before (ms since the epoch). */
  restartAt: number;
  lastError?: DandelionError;
}

const functionName = /^[a-z][a-z0-9-]{0,39}$/;
/** The first crash is answered by a start at once; then 200 ms, doubled up to this. */
const longestBackOffMs = 10_000;
/** A process that lived this long was well: its crash is a new story. */
const wellAfterMs = 30_000;

/** Runs the functions that are built in `distDir`; none is started before it is acquired. */
export function openProcesses(options: ProcessesOptions): Processes {
  const { distDir, logsDir, env, logger, db } = options;
  const { idleTimeoutMs = 60_000, graceMs = 30_000, startTimeoutMs = 60_000 } = options;
  const slots = new Map<string, Slot>();
  const jobs = openJobProcesses({ distDir, logsDir, env, logger, db, graceMs });
  let stopped = false;

  const start = async (slot: Slot): Promise<FunctionProcess> => {
    await slot.stopping;
    const entry = join(distDir, slot.name, 'index.mjs');
    const startedAt = Date.now();
    const log = openLogFile(join(logsDir, `${slot.name}.log`));
    let begun: FunctionProcess;
    try {
      begun = await startFunctionProcess({ name: slot.name, entry, env, log, startTimeoutMs });
    } catch (error) {
      noteCrash(slot, error);
      throw error;
    }
    logger.info(
      { event: { action: 'function-started', duration: (Date.now() - startedAt) * 1e6 } },
      `${slot.name} runs as process ${begun.processId}`,
    );
    slot.current = begun;
    slot.aftermath = begun.ended
      .then((end) => onEnd(slot, begun, end, Date.now() - startedAt))
      .catch(reportTrouble);
    if (stopped) await begun.stop(graceMs);
    return begun;
  };

  const onEnd = async (slot: Slot, ended: FunctionProcess, end: FunctionEnd, livedMs: number) => {
    if (slot.current === ended) slot.current = undefined;
    const expected = slot.stopping !== undefined || stopped;
    if (!expected) {
      if (livedMs > wellAfterMs) slot.crashes = 0;
      const how = end.signal ?? `exit code ${end.code}`;
      const words = end.lastWords === '' ? '' : `: ${end.lastWords}`;
      noteCrash(
        slot,
        new DandelionError('upstream-unavailable', `The function ${slot.name} crashed (${how})${words}.`),
      );
      logger.error({ event: { action: 'function-crashed' } }, slot.lastError?.message);
    }
    const released = db === undefined ? [] : await releaseLeases(db, end.instanceId);
    if (released.length === 0 || stopped) return;
    // Its sweep finds the runs that were handed back, even those nobody waits for. Not awaited: a start may wait
    // for this very function to return.
    acquire(slot.name).then(({ release }) => release(), reportTrouble);
  };

  const noteCrash = (slot: Slot, error: unknown) => {
    slot.crashes += 1;
    const delayMs = slot.crashes < 2 ? 0 : Math.min(200 * 2 ** (slot.crashes - 2), longestBackOffMs);
    slot.restartAt = Date.now() + delayMs;
    slot.lastError = error instanceof DandelionError ? error : undefined;
  };

  const reportTrouble = (error: unknown) => logger.error({ err: error }, 'after the end of a function');

  const runningProcess = (slot: Slot): Promise<FunctionProcess> => {
    if (slot.current !== undefined && slot.stopping === undefined) return Promise.resolve(slot.current);
    if (slot.starting !== undefined) return slot.starting;
    const waitMs = slot.restartAt - Date.now();
    if (waitMs > 0) {
      const detail = slot.lastError?.message ?? `The function ${slot.name} crashed.`;
      return Promise.reject(
        new DandelionError('upstream-unavailable', detail, {
          retryAfterMs: waitMs,
          extra: { function: slot.name },
        }),
      );
    }
    slot.starting = start(slot).finally(() => {
      slot.starting = undefined;
    });
    return slot.starting;
  };

  const stopIdle = async (slot: Slot) => {
    const { current } = slot;
    if (slot.inFlight > 0 || current === undefined || slot.stopping !== undefined || stopped) return;
    if (db !== undefined && (await ownsRuns(db, current.instanceId))) return watchIdle(slot);
    if (slot.inFlight > 0 || slot.current !== current) return;
    logger.info({ event: { action: 'function-idle' } }, `${slot.name} is idle: stopping it`);
    slot.stopping = current.stop(graceMs).finally(() => {
      slot.stopping = undefined;
    });
    await slot.stopping;
  };

  const watchIdle = (slot: Slot) => {
    clearTimeout(slot.idleTimer);
    slot.idleTimer = setTimeout(() => stopIdle(slot).catch(reportTrouble), idleTimeoutMs);
    slot.idleTimer.unref();
  };

  const acquire = async (name: string): Promise<Acquired> => {
    if (stopped) throw new DandelionError('shutting-down', 'The platform is stopping.');
    const slot = slots.get(name) ?? (await addSlot(name));
    clearTimeout(slot.idleTimer);
    slot.inFlight += 1;
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      slot.inFlight -= 1;
      if (slot.inFlight === 0) watchIdle(slot);
    };
    try {
      return { url: (await runningProcess(slot)).url, release };
    } catch (error) {
      release();
      throw error;
    }
  };

  const requireBuilt = async (name: string): Promise<void> => {
    if (!functionName.test(name) || !(await isBuilt(distDir, name))) {
      throw new DandelionError(
        'not-found',
        `There is no function "${name}"; there are: ${(await builtNames(distDir)).join(', ') || 'none (run npm run build)'}.`,
      );
    }
  };

  const addSlot = async (name: string): Promise<Slot> => {
    await requireBuilt(name);
    const slot = slots.get(name) ?? { name, inFlight: 0, crashes: 0, restartAt: 0 };
    slots.set(name, slot);
    return slot;
  };

  return {
    names: () => builtNames(distDir),
    acquire,
    async runJob(name, event) {
      await requireBuilt(name);
      return jobs.run(name, event);
    },
    running: () =>
      [...slots.values()].flatMap(({ name, current, inFlight }) =>
        current === undefined ? [] : [{ name, processId: current.processId, inFlight }],
      ),
    async stop() {
      stopped = true;
      const jobsEnd = jobs.stop();
      await Promise.all(
        [...slots.values()].map(async (slot) => {
          clearTimeout(slot.idleTimer);
          await slot.starting?.catch(() => undefined);
          await slot.current?.stop(graceMs);
          await slot.stopping;
          await slot.aftermath;
        }),
      );
      await jobsEnd;
    },
  };
}

/** Work that was accepted with 202 shows in no open request, only in the ledger. */
async function ownsRuns(db: Database, instanceId: string): Promise<boolean> {
  return (await listUnfinished(db)).some((run) => run.leaseOwner === instanceId);
}

async function isBuilt(distDir: string, name: string): Promise<boolean> {
  return access(join(distDir, name, 'index.mjs')).then(
    () => true,
    () => false,
  );
}

async function builtNames(distDir: string): Promise<string[]> {
  const entries = await readdir(distDir, { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const built = await Promise.all(names.map((name) => isBuilt(distDir, name)));
  return names.filter((_, index) => built[index]).sort();
}
