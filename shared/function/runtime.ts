import type { Logger } from 'pino';
import type { Environment } from '../config.ts';
import type { StepRunner } from './durable.ts';
import type { Limits } from './limits.ts';
import type { FunctionMetrics } from './metrics.ts';
import type { NoticeBuffer } from './notices.ts';
import type { RuntimeSettings } from './settings.ts';
import type { Sink } from './sink.ts';
import type { FunctionModule } from './types.ts';

/** What all parts of one function's server share. */
export interface Runtime {
  name: string;
  module: FunctionModule;
  env: Environment;
  settings: RuntimeSettings;
  log: Logger;
  limits: Limits;
  metrics: FunctionMetrics;
  phase: 'starting' | 'ready' | 'stopping';
  /** Resolved when the function is ready, or stops before. */
  started: PromiseWithResolvers<void>;
  /** While it starts: the store that does not answer. */
  waitsFor: string | undefined;
  /** Set once `init` is done, for durable functions. */
  steps: StepRunner | undefined;
  /** Where notices go, if a sink is bound. */
  sink: Sink | undefined;
  /** Of functions that are not durable. */
  notices: NoticeBuffer;
  /** Until the first invocation of this process. */
  cold: boolean;
  /** Aborted when the function begins to stop. */
  stopping: AbortSignal;
  /** Aborted when its grace period is over, with the reason `shutting-down`. */
  cutOff: AbortSignal;
}
