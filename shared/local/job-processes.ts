import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { DandelionError } from '../errors.ts';
import type { Event } from '../events.ts';
import { encodeStructured } from '../function/cloudevents.ts';
import type { Database } from '../stores/database.ts';
import { releaseLeases } from '../stores/steps.ts';
import { type FunctionEnd, type JobProcess, startJobProcess } from './function-process.ts';
import { openLogFile } from './log-file.ts';

export interface JobProcessesOptions {
  distDir: string;
  logsDir: string;
  env: Readonly<Record<string, string | undefined>>;
  logger: Logger;
  db?: Database | undefined;
  graceMs: number;
}

/** Runs a function once an event, as a JobSink does: a process that ends with its work. */
export interface JobProcesses {
  /** Resolves when the process has ended. */
  run(name: string, event: Event): Promise<FunctionEnd>;
  /** Tells every process to hand its work back, and waits for its end. */
  stop(): Promise<void>;
}

/** Runs the functions that are built in `distDir`; what they write goes to a log file of their name. */
export function openJobProcesses(options: JobProcessesOptions): JobProcesses {
  const { distDir, logsDir, env, logger, db, graceMs } = options;
  const underWay = new Set<JobProcess>();
  let stopped = false;

  return {
    async run(name, event) {
      const folder = await mkdtemp(join(tmpdir(), 'dandelion-job-'));
      try {
        const eventPath = join(folder, 'event');
        await writeFile(eventPath, encodeStructured(event).body ?? '', { mode: 0o600 });
        if (stopped) throw new DandelionError('shutting-down', 'The platform is stopping.');
        const entry = join(distDir, name, 'index.mjs');
        const log = openLogFile(join(logsDir, `${name}.log`));
        const job = startJobProcess({ name, entry, env, log, eventPath });
        underWay.add(job);
        logger.info(
          { event: { action: 'job-started' } },
          `${name} works on ${event.id} as process ${job.processId}`,
        );
        const end = await job.ended;
        underWay.delete(job);
        if (db !== undefined) await releaseLeases(db, end.instanceId);
        return end;
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    async stop() {
      stopped = true;
      await Promise.all([...underWay].map((job) => job.stop(graceMs)));
    },
  };
}
