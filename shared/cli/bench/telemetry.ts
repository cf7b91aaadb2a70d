import { randomBytes } from 'node:crypto';
import { openSearch } from '../../stores/search.ts';
import { connectionCounts, loadSubject, measureInTurns, type Subject, seriesOf } from './predict.ts';
import { processorMs } from './processor-time.ts';
import { type RunningServer, startBundle } from './server-process.ts';
import type { Stage } from './stage.ts';
import { ratioOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';
import { startWorker } from './worker.ts';

/** What telling of itself may cost predict: 3 % of the throughput. */
const goal = { atLeast: 0.97 };
/** The port "discard", which nothing listens on: every connection is refused. */
const nobody = 'http://127.0.0.1:9';

/**
 * What logs and metrics in Elasticsearch cost predict: bundles that differ in nothing else, in turns. A local
 * Elasticsearch works on the same cores, so its share is part of the figures.
 */
export async function measureTelemetry(stage: Stage): Promise<Row[]> {
  const { search, options, say } = stage;
  const namespace = `bench${randomBytes(4).toString('hex')}`;
  const silent = { PREDICTION_LOG_SAMPLE: '0' };
  const ways: [string, Record<string, string | undefined>][] = [
    ['nothing told', silent],
    ['Elasticsearch away', { ...silent, ELASTICSEARCH_URL: nobody }],
  ];
  if (search.ELASTICSEARCH_URL === undefined) {
    say('SKIPPED: ELASTICSEARCH_URL is not set, so there is no Elasticsearch to measure with.');
  } else {
    const { ELASTICSEARCH_URL, ELASTICSEARCH_API_KEY } = search;
    const there = { ELASTICSEARCH_URL, ELASTICSEARCH_API_KEY, ELASTICSEARCH_NAMESPACE: namespace };
    ways.push(['Elasticsearch', { ...silent, ...there }]);
  }
  const load = startWorker('load-worker.ts');
  const servers: RunningServer[] = [];
  try {
    const subjects = [];
    const work: Work = new Map();
    for (const [name, settings] of ways) {
      const env = { ...stage.env, ...settings };
      const server = await startBundle('predict', {
        distDir: options.distDir,
        env,
        logsDir: stage.logsDir,
      });
      servers.push(server);
      subjects.push(withWork(await loadSubject(stage, load, name, server.url), server, work));
    }
    const measured = await measureInTurns(stage, subjects);
    const [nothing = '', ...others] = ways.map(([name]) => name);
    const perSecond = (name: string, connections: number) => seriesOf(measured, name, connections).perSecond;
    return connectionCounts.flatMap((count) => [
      row(`predict, ${nothing}, ${count} at once`, 'photos/s', summarise(perSecond(nothing, count))),
      ...others.map((name) =>
        row(
          `predict, ${name} / ${nothing}, ${count} at once: throughput`,
          'x',
          ratioOf(perSecond(name, count), perSecond(nothing, count)),
          goal,
        ),
      ),
      ...others.map((name) =>
        row(
          `predict, ${name} / ${nothing}, ${count} at once: processor time`,
          'x',
          ratioOf(workOf(work, name, count), workOf(work, nothing, count)),
          { atMost: 1.03 },
        ),
      ),
    ]);
  } finally {
    await Promise.all([load.close(), ...servers.map((server) => server.stop())]);
    await dropStreams(stage, namespace);
  }
}

/** Processor time a photo, in ms, burst by burst; by subject and number of connections. */
type Work = Map<string, number[]>;

/** The same subject, whose server's processor time is noted. Its first burst, which warms it up, is not. */
function withWork(subject: Subject, { processId }: RunningServer, work: Work): Subject {
  let isWarm = false;
  return {
    ...subject,
    async measure(connections, requests) {
      const before = await processorMs(processId);
      const burst = await subject.measure(connections, requests);
      const used = (await processorMs(processId)) - before;
      if (isWarm) workOf(work, subject.name, connections).push(used / burst.latenciesMs.length);
      isWarm = true;
      return burst;
    },
  };
}

function workOf(work: Work, name: string, connections: number): number[] {
  const key = `${name}, ${connections}`;
  const known = work.get(key) ?? [];
  work.set(key, known);
  return known;
}

async function dropStreams({ search: settings }: Stage, namespace: string): Promise<void> {
  const search = openSearch(settings);
  if (search === undefined) return;
  const client = await search.client();
  const name = ['logs', 'metrics', 'predictions'].map((type) => `${type}-dandelion.*-${namespace}`);
  await client.indices.deleteDataStream({ name }, { ignore: [404] });
  search.close();
}
