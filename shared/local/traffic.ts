import { join } from 'node:path';
import type { Logger } from 'pino';
import { readTriggers } from '../function/triggers.ts';
import type { Database } from '../stores/database.ts';
import type { ObjectStore } from '../stores/objects.ts';
import { type Broker, createBroker } from './broker.ts';
import { startGateway } from './gateway.ts';
import { openJournal } from './journal.ts';
import { followPipeline, type Pipeline } from './pipeline.ts';
import type { Processes } from './processes.ts';

export interface TrafficOptions {
  processes: Processes;
  /** Folder of the Trigger manifests. */
  triggersDir: string;
  /** Events that were accepted are kept in its folder `broker`. */
  dataDir: string;
  database: Database;
  objects: ObjectStore;
  model: string;
  port: number;
  host: string;
  token: string | undefined;
  logger: Logger;
}

/** Broker and gateway over functions: what ends together with them, since each waits for answers of another. */
export interface Traffic {
  gatewayUrl: string;
  broker: Broker;
  pipeline: Pipeline;
  stop(): Promise<void>;
}

/** Starts broker and gateway before functions that are there, or that are started when they are called. */
export async function startTraffic(options: TrafficOptions): Promise<Traffic> {
  const { processes, database, objects, model, port, host, token, logger } = options;
  const triggers = await readTriggers(options.triggersDir);
  const journal = await openJournal(join(options.dataDir, 'broker'), logger);
  const broker = createBroker({
    triggers,
    processes,
    journal,
    logger,
    ...(token === undefined ? {} : { token }),
  });
  const pipeline = followPipeline({ db: database, objects, model, broker });
  const gateway = await startGateway({
    ...{ port, host, processes, broker, pipeline, logger },
    ...(token === undefined ? {} : { token }),
  });
  const stop = async () => {
    pipeline.stop();
    const stopped = broker.stop();
    await processes.stop();
    // Last: functions hand the broker their notices until their end.
    await gateway.close();
    await stopped;
  };
  return { gatewayUrl: gateway.url, broker, pipeline, stop };
}
