import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectionCounts, loadSubject, measureInTurns, type Subject, seriesOf } from './predict.ts';
import { mainThreadMs, type ProcessorTimes, processorTimes } from './processor-time.ts';
import { type RunningServer, startBundle, startServer } from './server-process.ts';
import type { Stage } from './stage.ts';
import { differenceOf, ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker } from './worker.ts';

/** What telling of answers may cost: 3 % of the throughput. */
const goal = { atLeast: 0.97 };
/** Long enough for several batches of the log to be on their way meanwhile. */
const photosABurst = { quick: 400, usual: 1000 };
/** After it the last batch of a burst has been written, and is no part of the next. */
const SETTLE_MS = 2600;

/** Each way of asking, without and with the log. */
const ways = ['predict', 'predict by gateway'] as const;
const parts = ["predict's engine", "predict's event loop", 'broker', 'monitor', 'PostgreSQL'] as const;
type Part = (typeof parts)[number];

/**
 * What the prediction log costs: two processes of predict that differ in nothing else, in turns. Broker, monitor and
 * PostgreSQL work on the same cores, so the throughput pays for them as well; how much for whom, the processor time says.
 */
export async function measurePredictionLog(stage: Stage): Promise<Row[]> {
  const load = startWorker('load-worker.ts');
  const servers: RunningServer[] = [];
  const spent: Spent = new Map();
  try {
    const { distDir } = stage.options;
    const start = async (settings: Record<string, string>): Promise<RunningServer> => {
      const env = { ...stage.env, ...settings };
      const server = await startBundle('predict', { distDir, env, logsDir: stage.logsDir });
      servers.push(server);
      return server;
    };
    const off = await start({ PREDICTION_LOG_SAMPLE: '0' });
    const on = await start({ K_SINK: `${stage.platform.gatewayUrl}/broker` });
    const subjects: Subject[] = [];
    for (const [state, server] of [
      ['off', off],
      ['on', on],
    ] as const) {
      const gateway = await startGateway(stage, server, state);
      servers.push(gateway);
      for (const [way, url] of [
        [ways[0], server.url],
        [ways[1], `${gateway.url}/function/predict/`],
      ] as const) {
        const subject = await loadSubject(stage, load, nameOf(way, state), url);
        subjects.push(withTimes(subject, server, spent));
      }
    }
    const photos = stage.options.quick ? photosABurst.quick : photosABurst.usual;
    const measured = await measureInTurns(stage, subjects, () => photos);
    return connectionCounts.flatMap((count) =>
      ways.flatMap((way) => {
        const perSecond = (state: State) => seriesOf(measured, nameOf(way, state), count).perSecond;
        return [
          row(`${way}, log off, ${count} at once`, 'photos/s', summarise(perSecond('off'))),
          row(
            `${way}, log on / off, ${count} at once: throughput`,
            'x',
            ratioOf(perSecond('on'), perSecond('off')),
            goal,
          ),
          ...costRows(spent, way, count),
        ];
      }),
    );
  } finally {
    await Promise.all([load.close(), ...servers.map((server) => server.stop())]);
  }
}

type State = 'on' | 'off';

function nameOf(way: string, state: State): string {
  return `${way}, log ${state}`;
}

/** A gateway as in containers, before that one process of predict. */
function startGateway(stage: Stage, predict: RunningServer, state: State): Promise<RunningServer> {
  const { options, env, logsDir } = stage;
  const settings = {
    FUNCTION_URLS: `predict=${predict.url}`,
    DATA_DIR: join(options.dataDir, `gateway-${state}`),
  };
  return startServer({
    name: `gateway-${state}`,
    command: () => [process.execPath, join(options.distDir, 'local/gateway', 'index.mjs')],
    env: { ...env, ...settings },
    logsDir,
    readyPath: '/health/live',
  });
}

/** Microseconds of processor a photo, burst by burst; by subject and number of connections. */
type Spent = Map<string, Record<Part, number>[]>;

/** The same subject, the processor time of whose surroundings is noted. Its first burst, which warms it up, is not. */
function withTimes(subject: Subject, predict: RunningServer, spent: Spent): Subject {
  const now = async (): Promise<Record<Part, number>> =>
    timesByPart(await processorTimes(), predict.processId, await mainThreadMs(predict.processId));
  let isWarm = false;
  return {
    ...subject,
    async measure(connections, requests) {
      const before = await now();
      const burst = await subject.measure(connections, requests);
      await sleep(SETTLE_MS);
      const after = await now();
      const photos = burst.latenciesMs.length;
      const each = parts.map((part) => [part, ((after[part] - before[part]) * 1000) / photos] as const);
      if (isWarm)
        spentOn(spent, subject.name, connections).push(Object.fromEntries(each) as Record<Part, number>);
      isWarm = true;
      return burst;
    },
  };
}

function timesByPart(times: ProcessorTimes, predictId: number, mainMs: number): Record<Part, number> {
  const of = (isPart: (command: string, id: number) => boolean) =>
    times.reduce((sum, { processId, command, ms }) => sum + (isPart(command, processId) ? ms : 0), 0);
  return {
    "predict's engine": of((_, id) => id === predictId) - mainMs,
    // Where the log is written; what the other threads take differs from burst to burst by more than all of it.
    "predict's event loop": mainMs,
    // The platform's gateway and broker are in this process.
    broker: of((_, id) => id === process.pid),
    monitor: of((command) => command.includes('/monitor/index.mjs')),
    PostgreSQL: of((command) => command.includes('postgres')),
  };
}

function spentOn(spent: Spent, name: string, connections: number): Record<Part, number>[] {
  const key = `${name}, ${connections}`;
  const known = spent.get(key) ?? [];
  spent.set(key, known);
  return known;
}

function costRows(spent: Spent, way: string, count: number): Row[] {
  const of = (state: State) => spentOn(spent, nameOf(way, state), count);
  const totals = (state: State) => of(state).map((each) => parts.reduce((sum, part) => sum + each[part], 0));
  return [
    row(
      `${way}, log on - off, ${count} at once: processor of all`,
      'us/photo',
      differenceOf(totals('on'), totals('off')),
    ),
    row(
      `${way}, log on / off, ${count} at once: processor of all`,
      'x',
      ratioOf(totals('on'), totals('off')),
      { atMost: 1.03 },
    ),
    ...parts.map((part) => {
      const series = (state: State) => of(state).map((each) => each[part]);
      return row(`  of it ${part}`, 'us/photo', differenceOf(series('on'), series('off')));
    }),
  ];
}
