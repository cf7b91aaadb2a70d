import { writeSync } from 'node:fs';
import { ecsFormat } from '@elastic/ecs-pino-format';
import { type DestinationStream, type Logger, pino } from 'pino';
import { hasErrorCode } from '../system-errors.ts';

export interface LoggerOptions {
  /** Becomes `service.name`. */
  name: string;
  /** pino's level names; default `info`. */
  level?: string;
  /** Becomes `service.node.name`: which process of the service wrote the line. */
  instanceId?: string;
  /** Where lines go; standard output unless given. Written synchronously, so an exit loses nothing. */
  destination?: DestinationStream;
  /** Gets each line too, after the destination; must neither throw nor wait. */
  copyTo?: (line: string) => void;
}

/** A logger that writes one ECS JSON document a line. */
export function createLogger(options: LoggerOptions): Logger {
  const format = ecsFormat({
    serviceName: options.name,
    ...(options.instanceId === undefined ? {} : { serviceNodeName: options.instanceId }),
    apmIntegration: false,
  });
  const settings = { ...format, level: options.level ?? 'info' };
  const destination = options.destination ?? standardOutput();
  return pino(settings, options.copyTo === undefined ? destination : teed(destination, options.copyTo));
}

function teed(destination: DestinationStream, copyTo: (line: string) => void): DestinationStream {
  return {
    write(line) {
      destination.write(line);
      copyTo(line);
    },
  };
}

const FULL_PIPE_PAUSE_MS = 5;
/** A reader that takes nothing for this long is left alone for the time after. */
const FULL_PIPE_PATIENCE_MS = 2000;
const FULL_PIPE_REST_MS = 10_000;

/**
 * Standard output, written synchronously. Where its reader is gone or stuck, lines are dropped: pino's own destination
 * repeats a write to a closed pipe for ever, and a function whose platform was killed would never end.
 */
function standardOutput(): DestinationStream {
  const descriptor = process.stdout.fd ?? 1;
  let dropUntil = 0;
  return {
    write(line) {
      const startedAt = Date.now();
      if (startedAt < dropUntil) return;
      for (let rest = Buffer.from(line); rest.length > 0; ) {
        try {
          rest = rest.subarray(writeSync(descriptor, rest));
        } catch (error) {
          if (!hasErrorCode(error, 'EAGAIN')) dropUntil = Number.POSITIVE_INFINITY;
          else if (Date.now() - startedAt > FULL_PIPE_PATIENCE_MS) dropUntil = Date.now() + FULL_PIPE_REST_MS;
          if (dropUntil > startedAt) return;
          Atomics.wait(pauseCell, 0, 0, FULL_PIPE_PAUSE_MS);
        }
      }
    },
  };
}

const pauseCell = new Int32Array(new SharedArrayBuffer(4));

/** Adds the fields that say which function writes (ECS `faas.*`). */
export function functionLogger(logger: Logger, name: string, revision?: string): Logger {
  return logger.child({
    'faas.name': name,
    'faas.id': `/dandelion/functions/${name}`,
    ...(revision === undefined ? {} : { 'faas.version': revision }),
  });
}
