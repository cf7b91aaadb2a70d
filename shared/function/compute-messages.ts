import { DandelionError, type ErrorCode, toDandelionError } from '../errors.ts';

/** An error on its way between threads: structured clone keeps neither our class nor its fields. */
export interface ErrorMessage {
  code: ErrorCode;
  message: string;
  retryAfterMs: number | undefined;
  extra: Record<string, unknown>;
  cause: { name: string; message: string; stack: string | undefined } | undefined;
}

/** What a worker knows from its start. */
export interface WorkerData {
  /** Level of its log. */
  level: string;
}

/** A number that a job measures while it works. */
export interface JobMetric {
  key: string;
  value: number;
  step: number;
}

/** What a worker is told. */
export type ToWorker =
  | { kind: 'run'; id: number; job: string; input: unknown }
  | { kind: 'abort'; reason: ErrorMessage }
  /** Nothing more will come: end as soon as nothing runs. */
  | { kind: 'close' };

/** What a worker says. */
export type FromWorker =
  | { kind: 'answer'; id: number; output: unknown }
  | { kind: 'failure'; id: number; error: ErrorMessage }
  | { kind: 'progress'; done: number; total: number; note: string | undefined }
  | { kind: 'metric'; metric: JobMetric }
  /** One line as pino wrote it, to be written by the main thread with its own fields. */
  | { kind: 'log'; line: string };

/** An error as a message between threads can hold it, with its code and cause. */
export function packError(thrown: unknown): ErrorMessage {
  const { code, message, retryAfterMs, extra, cause } = toDandelionError(thrown);
  return { code, message, retryAfterMs, extra, cause: cause instanceof Error ? packCause(cause) : undefined };
}

/** The error as it was before {@link packError}. */
export function unpackError(packed: ErrorMessage): DandelionError {
  const { code, message, retryAfterMs, extra } = packed;
  return new DandelionError(code, message, { retryAfterMs, extra, cause: unpackCause(packed.cause) });
}

function packCause({ name, message, stack }: Error): ErrorMessage['cause'] {
  return { name, message, stack };
}

function unpackCause(packed: ErrorMessage['cause']): Error | undefined {
  return packed === undefined ? undefined : Object.assign(new Error(packed.message), packed);
}
