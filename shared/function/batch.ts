import type { FastifyReply, FastifyRequest } from 'fastify';
import { DandelionError, type Problem, toProblem } from '../errors.ts';
import type { Event } from '../events.ts';
import { fromJsonEvent, isBatchType, readBatch, toJsonEvent } from './cloudevents.ts';
import type { Runtime } from './runtime.ts';

/**
 * What became of one event of a batch, at its place in the answer: a status as the event alone would have got, with
 * the result event, or the problem, or for `Prefer: respond-async` the place of its run.
 */
export interface BatchOutcome {
  /** `null` where the event could not be read. */
  id: string | null;
  source: string | null;
  status: number;
  result?: Event;
  problem?: Problem;
  location?: string;
}

/** The part of an outcome that depends on the function. */
export type EventOutcome = Omit<BatchOutcome, 'id' | 'source'>;

/** Events of one batch that are worked at the same time. */
const AT_ONCE = 8;

/** True for a batch that this function takes; any other batch is refused where single events are read. */
export function takesBatch(runtime: Runtime, request: FastifyRequest): boolean {
  return runtime.module.batch === true && isBatchType(request.headers['content-type']);
}

/**
 * Answers a batch: 200 with a JSON array that has one outcome for each event, in their order. An event that cannot be
 * read or fails spoils nothing for the others. Only who sends batches gets such an answer; brokers send single events.
 *
 * @param work one event's outcome; may throw what the event alone would be answered with
 * @throws DandelionError `bad-event` when the body is no JSON array
 */
export async function answerBatch(
  runtime: Runtime,
  request: FastifyRequest,
  reply: FastifyReply,
  work: (event: Event) => Promise<EventOutcome>,
): Promise<FastifyReply> {
  const documents = readBatch(Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0));
  const outcomes: BatchOutcome[] = [];
  const next = documents.entries();
  const worker = async () => {
    for (const [index, document] of next) outcomes[index] = await settle(runtime, document, work);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return reply.send(outcomes);
}

/** A value as a result event or nothing, for a batch. */
export function eventOutcome(value: Event | undefined): EventOutcome {
  return value === undefined ? { status: 204 } : { status: 200, result: toJsonEvent(value) };
}

async function settle(
  runtime: Runtime,
  document: unknown,
  work: (event: Event) => Promise<EventOutcome>,
): Promise<BatchOutcome> {
  let key: Pick<BatchOutcome, 'id' | 'source'> = { id: null, source: null };
  try {
    const event = fromJsonEvent(document);
    key = { id: event.id, source: event.source };
    return { ...key, ...(await work(event)) };
  } catch (error) {
    runtime.metrics.failed(error);
    const problem = toProblem(error);
    if (problem.status >= 500) {
      const cause = error instanceof DandelionError && error.cause instanceof Error ? error.cause : error;
      runtime.log.error({ err: cause, 'error.code': problem.code }, 'an event of a batch failed');
    }
    return { ...key, status: problem.status, problem };
  }
}
