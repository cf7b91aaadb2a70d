import { ecsFormat } from '@elastic/ecs-pino-format';
import { type DestinationStream, type Logger, pino } from 'pino';

export interface LoggerOptions {
  /** Becomes `service.name`. */
  name: string;
  /** pino's level names; default `info`. */
  level?: string;
  /** Becomes `service.node.name`: which process of the service wrote the line. */
  instanceId?: string;
  /** Where lines go; standard output unless given. Written synchronously, so an exit loses nothing. */
  destination?: DestinationStream;
}

/** A logger that writes one ECS JSON document a line. */
export function createLogger(options: LoggerOptions): Logger {
  const format = ecsFormat({
    serviceName: options.name,
    ...(options.instanceId === undefined ? {} : { serviceNodeName: options.instanceId }),
    apmIntegration: false,
  });
  const settings = { ...format, level: options.level ?? 'info' };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}

/** Adds the fields that say which function writes (ECS `faas.*`). */
export function functionLogger(logger: Logger, name: string, revision?: string): Logger {
  return logger.child({
    'faas.name': name,
    'faas.id': `/dandelion/functions/${name}`,
    ...(revision === undefined ? {} : { 'faas.version': revision }),
  });
}
