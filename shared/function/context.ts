import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { DandelionError } from '../errors.ts';
import {
  createEvent,
  type Event,
  type EventData,
  type EventType,
  eventSchemas,
  noticeIdOf,
  resultIdOf,
} from '../events.ts';
import { schemaFaults } from '../schema-faults.ts';
import { encodeBinary } from './cloudevents.ts';
import type { Trace } from './trace.ts';
import type { FunctionContext, FunctionEvent, FunctionModule, Notice } from './types.ts';

/** One call of a handler: what it gets, and who hears of its progress. */
export interface Invocation {
  functionName: string;
  event: FunctionEvent;
  trace: Trace;
  log: Logger;
  signal: AbortSignal;
  attempt: number;
  onProgress(progress: { done: number; total: number; note?: string }): void;
  onNotice(notice: Event): void;
}

/** What a handler answered, before it is laid out for a protocol. */
export interface Answer {
  value: unknown;
  status: number | undefined;
  headers: Record<string, string>;
}

/** The `source` of everything a function sends. */
export function sourceOf(functionName: string): string {
  return `/dandelion/functions/${functionName}`;
}

/** An answer nobody has given yet. */
export function emptyAnswer(): Answer {
  return { value: undefined, status: undefined, headers: {} };
}

/**
 * Calls the handler; rejects with whatever it throws.
 *
 * @param answer filled while the handler runs, so that what it set is known when it fails
 */
export async function invokeHandler(
  module: FunctionModule,
  invocation: Invocation,
  answer: Answer = emptyAnswer(),
): Promise<Answer> {
  const context = createContext(invocation, answer);
  const value = await module.handler(invocation.event, context);
  return value === undefined ? answer : { ...answer, value };
}

function createContext(invocation: Invocation, answer: Answer): FunctionContext {
  const { functionName, event, trace } = invocation;
  let notices = 0;
  const context: FunctionContext = {
    functionName,
    signal: invocation.signal,
    log: invocation.log,
    attempt: invocation.attempt,
    traceparent: trace.traceparent,
    status(code) {
      answer.status = code;
      return context;
    },
    headers(values) {
      for (const [name, value] of Object.entries(values)) answer.headers[name.toLowerCase()] = value;
      return context;
    },
    succeed(value) {
      answer.value = value;
      return value;
    },
    fail(error) {
      throw error instanceof Error ? error : new DandelionError('internal', String(error));
    },
    progress(done, total, note) {
      invocation.onProgress(note === undefined ? { done, total } : { done, total, note });
    },
    emit(notice) {
      const made = noticeEvent(invocation, notice, notices);
      notices += 1;
      invocation.onNotice(made);
    },
    result(type, data, subject) {
      return createEvent({
        type,
        source: sourceOf(functionName),
        id: resultId(functionName, event.cloudEvent),
        data: checkedData(type, data),
        traceparent: trace.traceparent,
        ...(subject === undefined ? {} : { subject }),
      });
    },
  };
  return context;
}

/** @throws DandelionError `bad-result` */
function noticeEvent({ functionName, event, trace }: Invocation, notice: Notice, ordinal: number): Event {
  const input = event.cloudEvent;
  const id = input === undefined ? randomUUID() : noticeIdOf(functionName, input.source, input.id, ordinal);
  return createNotice(functionName, notice, { id, traceparent: trace.traceparent });
}

/**
 * A notice as the event that goes to the sink.
 *
 * @throws DandelionError `bad-result` when it makes no valid CloudEvent
 */
export function createNotice(
  functionName: string,
  notice: Notice,
  attributes: { id: string; traceparent?: string } = { id: randomUUID() },
): Event {
  const made = {
    specversion: '1.0',
    source: sourceOf(functionName),
    time: new Date().toISOString(),
    ...attributes,
    ...contentTypeOf(notice.data),
    ...notice,
  };
  encodeBinary(made);
  return made;
}

function contentTypeOf(data: unknown): { datacontenttype?: string } {
  if (data === undefined) return {};
  return {
    datacontenttype: data instanceof Uint8Array ? 'application/octet-stream' : 'application/json',
  };
}

/**
 * Brings the answer of a durable step into its one form: an event whose id and source depend on function and input
 * alone, or nothing.
 *
 * @throws DandelionError `bad-result` for anything else
 */
export function stepResult(
  functionName: string,
  input: Event,
  trace: Trace,
  value: unknown,
): Event | undefined {
  if (value === undefined) return undefined;
  if (!isEvent(value)) {
    throw new DandelionError('bad-result', 'A durable step returns context.result(...) or nothing.');
  }
  return {
    traceparent: trace.traceparent,
    ...value,
    id: resultId(functionName, input),
    source: sourceOf(functionName),
  };
}

/** True for objects with the four attributes that every CloudEvent has. */
export function isEvent(value: unknown): value is Event {
  if (typeof value !== 'object' || value === null) return false;
  const { id, source, type, specversion } = value as Partial<Event>;
  return [id, source, type, specversion].every((attribute) => typeof attribute === 'string');
}

function resultId(functionName: string, input: Event | undefined): string {
  return input === undefined ? randomUUID() : resultIdOf(functionName, input.source, input.id);
}

function checkedData<Type extends EventType>(type: Type, data: EventData<Type>): EventData<Type> {
  const parsed = eventSchemas[type].safeParse(data);
  if (parsed.success) return parsed.data as EventData<Type>;
  const faults = schemaFaults(parsed.error);
  throw new DandelionError('bad-result', `The result ${type} does not fit its schema: ${faults}.`);
}
