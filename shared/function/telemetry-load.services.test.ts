import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client } from '@elastic/elasticsearch';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { describeService } from '../stores/testing-services.ts';
import { openWay, type Way } from '../stores/testing-way.ts';

const entry = fileURLToPath(new URL('fixtures/process.ts', import.meta.url));
/** Small by default: `DANDELION_LOG_LINES=1000000` and `DANDELION_OUTAGE_SECONDS=600` are for who has the time. */
const sizes = z
  .object({
    DANDELION_LOG_LINES: z.coerce.number().int().min(1000).default(30_000),
    DANDELION_OUTAGE_SECONDS: z.coerce.number().int().min(1).default(5),
  })
  .parse(process.env);
const LINES_A_CALL = 250;
/**
 * Of the process: with more to keep than its buffer of 8 MB and what is under way it would end here. Left alone, the engine
 * clears away when it likes, and grows to some 400 MB resident.
 */
const HEAP_MB = 96;
/** What a process may grow by. */
const MOST_GROWTH_MB = 200;
/** A minute apart, and one at the start. */
const metricsDocuments = (startedAt: number) => Math.ceil((performance.now() - startedAt) / 60_000) + 1;

describeService('ELASTICSEARCH_URL', "a function's telemetry under load", (node) => {
  let client: Client;
  let way: Way;
  let child: ChildProcess;
  let url: string;
  let startedAt: number;
  /** Lines that the process wrote; those of its telemetry about itself go nowhere else. */
  let written: { lines: number; ownLines: number };
  /** Logs and metrics of this process alone. */
  let streams: string;

  beforeAll(() => {
    client = new Client({ node });
  });
  beforeEach(async () => {
    way = await openWay(node);
    const namespace = `test${randomBytes(4).toString('hex')}`;
    streams = `*-dandelion.chatty-${namespace}`;
    startedAt = performance.now();
    written = { lines: 0, ownLines: 0 };
    child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MB}`, entry, 'chatty'], {
      env: {
        ...process.env,
        ...{ PORT: '0', LOG_LEVEL: 'info', ELASTICSEARCH_URL: way.url, ELASTICSEARCH_NAMESPACE: namespace },
      },
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    });
    countLines(child, written);
    const [{ listening }] = (await once(child, 'message')) as [{ listening: { port: number } }];
    url = `http://127.0.0.1:${listening.port}`;
    await expect.poll(async () => (await fetch(`${url}/health/ready`)).status).toBe(200);
  });
  afterEach(async () => {
    child.kill('SIGKILL');
    await way.close();
    await client.indices.deleteDataStream({ name: streams });
  });
  afterAll(() => client.close());

  async function call(): Promise<number> {
    const since = performance.now();
    const response = await fetch(`${url}/?lines=${LINES_A_CALL}`);
    expect([response.status, await response.json()]).toEqual([200, { lines: LINES_A_CALL }]);
    return performance.now() - since;
  }

  async function figures() {
    const text = await (await fetch(`${url}/metrics`)).text();
    const value = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
    const documents = (outcome: string) =>
      value(new RegExp(`^faas_search_documents_total\\{.*outcome="${outcome}".*\\} (\\d+)$`, 'm'));
    const [stored, refused, dropped] = ['stored', 'refused', 'dropped'].map(documents) as [
      number,
      number,
      number,
    ];
    return {
      ...{ stored, refused, dropped, settled: stored + refused + dropped },
      residentMegabytes: value(/^process_resident_memory_bytes\{?.*\}? ([\d.e+]+)$/m) / 1e6,
    };
  }

  /** Waits until every line that was written has been stored, refused or dropped, and adds them up. */
  async function settle() {
    const offered = () => written.lines - written.ownLines;
    await expect
      .poll(async () => (await figures()).settled - offered(), { timeout: 120_000, interval: 500 })
      .toBeGreaterThanOrEqual(0);
    const end = await figures();
    expect(end.settled - offered()).toBeLessThanOrEqual(metricsDocuments(startedAt));
    expect(end.refused).toBe(0);
    await client.indices.refresh({ index: streams });
    const { count } = await client.count({ index: streams });
    expect(count).toBe(end.stored);
    return end;
  }

  test(`${sizes.DANDELION_LOG_LINES} lines as fast as they come: stored and dropped are what was written`, async () => {
    for (let calls = 0; calls < 20; calls++) await call();
    const before = await figures();
    const since = performance.now();
    let most = before.residentMegabytes;
    for (let lines = 0; lines < sizes.DANDELION_LOG_LINES; lines += LINES_A_CALL) {
      await call();
      if (lines % (LINES_A_CALL * 40) === 0) most = Math.max(most, (await figures()).residentMegabytes);
    }
    const seconds = (performance.now() - since) / 1000;
    const during = await figures();
    const end = await settle();
    console.info(
      `${sizes.DANDELION_LOG_LINES} lines in ${seconds.toFixed(1)} s, ` +
        `${Math.round((during.stored - before.stored) / seconds)}/s stored meanwhile; ` +
        `${end.stored} stored, ${end.dropped} dropped; resident ${before.residentMegabytes.toFixed(0)} MB before, ${most.toFixed(0)} at most`,
    );
    expect(end.stored).toBeGreaterThan(0);
    expect(most - before.residentMegabytes).toBeLessThan(MOST_GROWTH_MB);
  }, 3_600_000);

  test(`${sizes.DANDELION_OUTAGE_SECONDS} s without a server under load: nothing waits, the rest is counted, then all goes on`, async () => {
    for (let calls = 0; calls < 20; calls++) await call();
    const before = await settle();
    await way.shut();
    const outageMs = sizes.DANDELION_OUTAGE_SECONDS * 1000;
    const since = performance.now();
    let calls = 0;
    let longestMs = 0;
    let most = before.residentMegabytes;
    // As long as it takes to fill the buffer of 10 000 documents, at least.
    while (performance.now() - since < outageMs || calls < 60) {
      longestMs = Math.max(longestMs, await call());
      calls += 1;
      if (calls % 20 === 0) most = Math.max(most, (await figures()).residentMegabytes);
      await delay(50);
    }
    const away = await figures();
    // Nothing got through, and what no longer fits was dropped.
    expect(away.stored).toBe(before.stored);
    expect(away.dropped).toBeGreaterThan(0);
    await way.open();
    const end = await settle();
    // Nothing that waited was lost, and what comes now is stored as ever.
    expect(end.dropped).toBe(away.dropped);
    const last = await call().then(settle);
    expect(last.stored).toBeGreaterThan(end.stored);
    console.info(
      `${((performance.now() - since) / 1000).toFixed(0)} s, ${calls} calls of ${LINES_A_CALL} lines, the longest ${longestMs.toFixed(0)} ms; ` +
        `${end.stored - before.stored} stored afterwards, ${end.dropped} dropped; ` +
        `resident ${before.residentMegabytes.toFixed(0)} MB before, ${most.toFixed(0)} at most`,
    );
    expect(most - before.residentMegabytes).toBeLessThan(MOST_GROWTH_MB);
  }, 3_600_000);
});

/** Counts without keeping: a million lines are some hundred megabytes. */
function countLines(child: ChildProcess, written: { lines: number; ownLines: number }): void {
  let rest = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    written.lines += lines.length;
    written.ownLines += lines.filter((line) => line.includes('"telemetry"')).length;
  });
}
