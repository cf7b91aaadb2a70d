import { readFile } from 'node:fs/promises';
import { loadResult, requireAllAnswered } from './load.ts';
import { residentMegabytes } from './resident.ts';
import { startBundle } from './server-process.ts';
import type { Stage } from './stage.ts';
import { summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker } from './worker.ts';

/** Resident memory of predict fresh and after 32 connections; that of training is taken where training is timed. */
export async function measureMemory(stage: Stage): Promise<Row[]> {
  const { env, logsDir, options } = stage;
  const load = startWorker('load-worker.ts');
  const fresh: number[] = [];
  const loaded: number[] = [];
  try {
    const body = new Uint8Array(await readFile(stage.photo.path));
    for (let run = 0; run < options.runs; run++) {
      const server = await startBundle('predict', { distDir: options.distDir, env, logsDir });
      try {
        fresh.push(await residentMegabytes(server.processId));
        const counts = {
          connections: 32,
          requests: options.quick ? 200 : 600,
          warmUp: 0,
          timeLimitMs: 20_000,
        };
        const headers = { 'content-type': 'image/jpeg' };
        const result = await load.ask({ url: server.url, ...counts, body, headers }, loadResult);
        requireAllAnswered('predict', result);
        loaded.push(await residentMegabytes(server.processId));
      } finally {
        await server.stop();
      }
    }
  } finally {
    await load.close();
  }
  return [
    row('predict: resident when ready', 'MB', summarise(fresh)),
    row('predict: resident after 32 connections', 'MB', summarise(loaded), { atMost: 250 }),
  ];
}
