import { join } from 'node:path';
import { loadResult, requireAllAnswered } from './load.ts';
import { withScratch } from './scratch.ts';
import { startNode } from './server-process.ts';
import type { Stage } from './stage.ts';
import { differenceOf, median, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker, type Worker } from './worker.ts';

/** What the ledger costs: a durable step that does nothing, beside a plain call that does nothing. */
export async function measureSteps(stage: Stage): Promise<Row[]> {
  const load = startWorker('load-worker.ts');
  try {
    return await withScratch(stage, async ({ env }) => {
      const { logsDir } = stage;
      const script = join(import.meta.dirname, 'idle-function.ts');
      const start = (kind: string) => startNode(`idle-${kind}`, script, { env, logsDir, parameters: [kind] });
      const [step, call] = await Promise.all([start('step'), start('call')]);
      try {
        const stepMs: number[] = [];
        const callMs: number[] = [];
        for (let round = 0; round < stage.options.runs; round++) {
          stepMs.push(await medianLatency(load, step.url, stage.options.quick ? 50 : 150));
          callMs.push(await medianLatency(load, call.url, stage.options.quick ? 50 : 150));
        }
        return [
          row('durable step that does nothing', 'ms', summarise(stepMs)),
          row('plain call that does nothing', 'ms', summarise(callMs)),
          row('durable step - plain call', 'ms', differenceOf(stepMs, callMs), { atMost: 15 }),
        ];
      } finally {
        await Promise.all([step.stop(), call.stop()]);
      }
    });
  } finally {
    await load.close();
  }
}

/** Of one event after another, each with an id of its own. */
async function medianLatency(load: Worker, url: string, requests: number): Promise<number> {
  const headers = {
    ...{ 'ce-specversion': '1.0', 'ce-type': 'bench', 'ce-source': '/bench' },
    'content-type': 'application/json',
  };
  const counts = { connections: 1, requests, warmUp: 20, timeLimitMs: 30_000 };
  const plan = { url, ...counts, headers, body: new Uint8Array(Buffer.from('{}')), countedHeader: 'ce-id' };
  const result = await load.ask(plan, loadResult);
  requireAllAnswered(url, result);
  return median(result.latenciesMs);
}
