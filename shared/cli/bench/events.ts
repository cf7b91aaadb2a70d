import { z } from 'zod';
import type { Stage } from './stage.ts';
import { ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker } from './worker.ts';

const answer = z.record(z.string(), z.number());

/** Processor time of reading a CloudEvent, beside the `cloudevents` package. */
export async function measureEvents(stage: Stage): Promise<Row[]> {
  const { quick, runs } = stage.options;
  const worker = startWorker('event-worker.ts');
  const measured = new Map<string, number[]>();
  try {
    await worker.ask({ events: 5000 }, answer);
    for (let round = 0; round < runs; round++) {
      const microseconds = await worker.ask({ events: quick ? 10_000 : 40_000 }, answer);
      for (const [name, value] of Object.entries(microseconds)) {
        measured.set(name, [...(measured.get(name) ?? []), value]);
      }
    }
  } finally {
    await worker.close();
  }
  const of = (name: string) => measured.get(name) ?? [];
  return ['binary', 'structured'].flatMap((mode) => {
    const [ours, theirs] = [of(`dandelion ${mode}`), of(`cloudevents ${mode}`)];
    return [
      row(`read a ${mode} event`, 'us CPU', summarise(ours)),
      row(`read a ${mode} event, package cloudevents`, 'us CPU', summarise(theirs)),
      row(`read a ${mode} event / package cloudevents`, 'x', ratioOf(ours, theirs)),
    ];
  });
}
