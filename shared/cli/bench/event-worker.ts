import type { IncomingHttpHeaders } from 'node:http';
import { HTTP } from 'cloudevents';
import { z } from 'zod';
import { createEvent } from '../../events.ts';
import { decodeEvents, encodeBinary, encodeStructured } from '../../function/cloudevents.ts';
import { answerQuestions } from './worker.ts';

const question = z.object({ events: z.number().int().positive() });

const event = createEvent({
  type: 'dev.dandelion.images.ingested.v1',
  source: '/dandelion/functions/ingest',
  id: '0123456789abcdef0123456789abcdef',
  subject: 'plants',
  traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  data: {
    ...{ model: 'plants', ingestion: '0123456789abcdef', seed: 1, images: 300, reused: 0, rejectedCount: 1 },
    classes: { dandelion: 150, grass: 150 },
    duplicates: { exact: 0, near: 3 },
    rejected: [{ source: 'grass/00000042.jpg', reason: 'The file is damaged or cut off.' }],
  },
});

/** Each way of reading an event, ours and that of the `cloudevents` package, from the bytes of a body. */
const readers = Object.fromEntries(
  Object.entries({ binary: encodeBinary(event), structured: encodeStructured(event) }).flatMap(
    ([mode, { headers, body = Buffer.alloc(0) }]): [string, () => unknown][] => {
      const incoming: IncomingHttpHeaders = headers;
      return [
        [`dandelion ${mode}`, () => decodeEvents(incoming, body)],
        [`cloudevents ${mode}`, () => HTTP.toEvent({ headers: incoming, body: body.toString() })],
      ];
    },
  ),
);

/** Microseconds of processor time an event, of all threads of this process. */
answerQuestions(question, async ({ events }) =>
  Object.fromEntries(
    Object.entries(readers).map(([name, readEvent]) => {
      const before = process.cpuUsage();
      for (let index = 0; index < events; index++) readEvent();
      const { user, system } = process.cpuUsage(before);
      return [name, (user + system) / events];
    }),
  ),
);
