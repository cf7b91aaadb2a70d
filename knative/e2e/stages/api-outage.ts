import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { readPredictTraffic } from '../../../shared/cli/predict-service.ts';
import { until } from '../cluster.ts';
import {
  championOf,
  copyOf,
  DEPLOYMENT_TIMEOUT_MS,
  SLOW_CANARY,
  stateOf,
  untilEnded,
} from '../deployments.ts';
import { approval, sendWithoutWaiting } from '../pipelines.ts';
import { lastApproval, type Suite } from '../stage.ts';
import { type Row, row, skipped } from '../table.ts';
import { startStream } from '../traffic.ts';

/** Deploy goes on trying for half a minute by itself, and each call that hangs counts ten seconds. */
const AWAY_MS = 30_000;

/** The Kubernetes API is away in the middle of a canary: predict goes on answering, and the canary goes on to its end. */
export async function apiOutage(suite: Suite): Promise<Row[]> {
  const { E2E_PAUSE_API: pause, E2E_RESUME_API: resume } = process.env;
  if (pause === undefined || resume === undefined) {
    const how = 'set E2E_PAUSE_API and E2E_RESUME_API to commands that stop and continue the API server';
    suite.say(`  SKIPPED: ${how}`);
    return [skipped(`API away for ${AWAY_MS / 1000} s in the canary`, how)];
  }
  const { cluster, ingress, photo, say } = suite;
  const url = (await readPredictTraffic(cluster.api, cluster.namespace))?.url;
  if (url === undefined) throw new Error('there is no predict Service');
  const version = await copyOf(suite, await championOf(suite));
  const event = approval(await lastApproval(suite), version, SLOW_CANARY);
  sendWithoutWaiting(suite, event);
  await until('the canary begins', async () => (await stateOf(suite, event))?.phase === 'canary', {
    timeoutMs: DEPLOYMENT_TIMEOUT_MS,
  });
  const stream = startStream(() => ingress.post(new URL(url).host, photo), { atOnce: 2, pauseMs: 45 });
  const pausedAt = Date.now();
  try {
    await run(pause);
    say('  the API server stands still');
    await sleep(AWAY_MS);
  } finally {
    await run(resume);
  }
  const { sent, lost } = await stream.stop();
  for (const fault of lost.slice(0, 5)) say(`  lost: ${fault}`);
  const ended = await untilEnded(suite, event);
  for (const { at, phase, decision, reason } of ended?.decisions ?? []) {
    const afterS = ((Date.parse(at) - pausedAt) / 1000).toFixed(0);
    say(`  ${afterS} s after the API server stopped, ${phase}: ${decision}: ${reason}`);
  }
  return [
    row(
      `API away for ${AWAY_MS / 1000} s in the canary`,
      `${ended?.phase ?? 'no end'}, ${ended?.attempts} attempts`,
      'goes on and promotes',
      ended?.phase === 'done' && (await championOf(suite)) === version,
    ),
    row('lost requests meanwhile', `${lost.length} of ${sent}`, '0', lost.length === 0 && sent > 0),
  ];
}

async function run(command: string): Promise<void> {
  await promisify(execFile)('sh', ['-c', command]);
}
