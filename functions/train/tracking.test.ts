import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { recordingLogger } from '../../shared/function/fixtures/lines.ts';
import { openTracker, type TrackedRun } from '../../shared/stores/tracking.ts';
import { streamMetrics } from './tracking.ts';

let folder: string;
let run: TrackedRun;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-stream-'));
  const name = { experiment: 'plants', runId: 'plants-v1', runName: 'v1', tags: {} };
  run = await openTracker({ TRACKING_DIR: folder }).startRun(name);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const loss = (step: number) => ({ key: 'train/loss', value: 1 / (step + 1), step });

describe('streamMetrics', () => {
  it('shows metrics of a training that still goes on, and the last ones at its end', async () => {
    const { logger } = recordingLogger('train');
    const stream = streamMetrics(run, logger, 10);
    stream.push(loss(0));
    stream.push(loss(1));
    await expect.poll(() => run.metricHistory('train/loss')).toEqual([loss(0), loss(1)]);
    stream.push(loss(2));
    await stream.flush();
    stream.stop();
    // What was streamed may be logged once more with the rest: it doubles nothing.
    await run.logMetrics([0, 1, 2, 3].map(loss));
    expect(await run.metricHistory('train/loss')).toEqual([0, 1, 2, 3].map(loss));
  });

  it('keeps what the tracker does not take for the next try, and lets the training go on', async () => {
    const { logger, lines } = recordingLogger('train');
    let refusals = 2;
    const logMetrics: TrackedRun['logMetrics'] = async (metrics) => {
      if (refusals > 0) {
        refusals -= 1;
        throw new Error('away');
      }
      await run.logMetrics(metrics);
    };
    const stream = streamMetrics({ ...run, logMetrics }, logger, 10);
    stream.push(loss(0));
    await expect.poll(() => lines.length).toBeGreaterThan(0);
    stream.push(loss(1));
    await expect.poll(() => run.metricHistory('train/loss')).toEqual([loss(0), loss(1)]);
    stream.stop();
    expect(lines).toHaveLength(2);
    for (const line of lines) expect(line['log.level']).toBe('warn');
  });
});
