import { z } from 'zod';
import { count, flag } from '../../shared/config.ts';
import { DandelionError } from '../../shared/errors.ts';
import type { Event } from '../../shared/events.ts';
import { toJsonEvent } from '../../shared/function/cloudevents.ts';
import type { Sink } from '../../shared/function/sink.ts';
import type { FunctionContext, FunctionEvent } from '../../shared/function/types.ts';
import type { Database } from '../../shared/stores/database.ts';
import {
  type Burial,
  type DeadLetter,
  findDeadLetter,
  listDeadLetters,
  noteReplay,
  saveDeadLetter,
} from '../../shared/stores/dead-letters.ts';
import { reopenSteps } from '../../shared/stores/steps.ts';

/** Everything under `/dead-letters`. */
export interface DeadLetterOffice {
  answer(event: FunctionEvent, context: FunctionContext): Promise<unknown>;
}

const listQuery = z.object({ all: flag.default(false), limit: count(1).max(1000).default(100) });
const itemPath = /^\/dead-letters\/([0-9a-f]{32})(\/replay)?$/;
const problem = z.object({ code: z.string(), detail: z.string() });

/** @param sink the broker, for replays */
export function createDeadLetterOffice(db: Database, sink: Sink | undefined): DeadLetterOffice {
  const bury = async (event: Event, { log }: FunctionContext): Promise<undefined> => {
    const burial = readBurial(event);
    try {
      const id = await saveDeadLetter(db, burial);
      log.error(
        { event: { action: 'dead-letter', id: burial.event.id } },
        `${burial.destination} did not take ${burial.event.type}: ${burial.cause} (dead letter ${id})`,
      );
    } catch (error) {
      // Brokers do not keep what their dead-letter sink does not take: then the log is what is left of it.
      const letter = JSON.stringify(toJsonEvent(event));
      log.error({ err: error, 'event.original': letter }, 'a dead letter could not be stored; here it is');
      throw error;
    }
    return undefined;
  };

  const find = async (id: string): Promise<DeadLetter> => {
    const letter = await findDeadLetter(db, id);
    if (letter !== undefined) return letter;
    throw new DandelionError('dead-letter-unknown', `There is no dead letter ${id}.`);
  };

  /** Sends the event to the broker again; runs that had refused it for good work on it once more. */
  const replay = async (id: string): Promise<unknown> => {
    const { event } = await find(id);
    if (sink === undefined) {
      throw new DandelionError('bad-config', 'Set K_SINK to the address of the broker to send events again.');
    }
    await reopenSteps(db, event);
    const answer = await sink(event);
    if (answer.kind !== 'taken') {
      throw new DandelionError(
        'upstream-unavailable',
        `The broker did not take the event: ${answer.reason}.`,
      );
    }
    await noteReplay(db, id);
    return describe(await find(id));
  };

  return {
    async answer(event, context) {
      const { method, path } = event;
      if (path === '/dead-letters' && method === 'POST') {
        if (event.cloudEvent !== undefined) return bury(event.cloudEvent, context);
        context.log.error({ 'event.original': event.rawBody.toString() }, 'a dead letter is no CloudEvent');
        throw new DandelionError('bad-event', 'Dead letters are CloudEvents.');
      }
      if (path === '/dead-letters' && method === 'GET') {
        const wanted = listQuery.safeParse(event.query);
        if (!wanted.success) throw new DandelionError('bad-request', 'Use ?all=true and ?limit=1 to 1000.');
        return { deadLetters: (await listDeadLetters(db, wanted.data)).map(describe) };
      }
      const [, id, action] = itemPath.exec(path) ?? [];
      if (id === undefined) throw new DandelionError('not-found', `Nothing is at ${path}.`);
      if (action === undefined && method === 'GET') return describe(await find(id));
      if (action === '/replay' && method === 'POST') return replay(id);
      throw new DandelionError('method-not-allowed', 'GET a dead letter, or POST to its /replay.');
    },
  };
}

function describe({ event, ...letter }: DeadLetter) {
  return { ...letter, event: toJsonEvent(event) };
}

/**
 * Takes an event and the broker's words on it apart.
 *
 * Source: Knative Eventing, event delivery: the extensions `knativeerrordest`, `knativeerrorcode` and
 * `knativeerrordata` (base64 of the first 1024 bytes of the answer).
 */
function readBurial(letter: Event): Burial {
  const {
    knativeerrordest: destination,
    knativeerrorcode: code,
    knativeerrordata: data,
    knativebrokerttl: _hops,
    ...event
  } = letter;
  const status = Number(code);
  return {
    event: event as Event,
    destination: String(destination ?? 'unknown'),
    status: Number.isInteger(status) && status > 0 ? status : null,
    cause: causeOf(data) || `HTTP status ${String(code ?? 'unknown')}`,
  };
}

function causeOf(data: unknown): string {
  if (typeof data !== 'string') return '';
  const bytes = Buffer.from(data, 'base64');
  const text = bytes.toString('base64') === data ? bytes.toString() : data;
  try {
    const { code, detail } = problem.parse(JSON.parse(text));
    return `${code}: ${detail}`;
  } catch {
    // Another server's words, or a problem that was cut off.
    return text.slice(0, 1024);
  }
}
