import type { Event } from '../events.ts';
import type { DeadLetter } from './broker.ts';

/** Of the answer; what Knative keeps of it. */
const KEPT_BYTES = 1024;

/**
 * A dead letter as Knative hands it to a dead-letter sink: the event with the broker's words on it.
 *
 * Source: Knative Eventing, event delivery: `knativeerrordest`, `knativeerrorcode` and `knativeerrordata`.
 */
export function deadLetterEvent({ event, function: name, problem }: DeadLetter): Event {
  const { code, detail, status } = problem;
  const answer = Buffer.from(JSON.stringify({ code, status, detail: detail.slice(0, 600) }));
  return {
    ...event,
    knativeerrordest: `/function/${name}`,
    knativeerrorcode: status,
    knativeerrordata: answer.subarray(0, KEPT_BYTES).toString('base64'),
  };
}
