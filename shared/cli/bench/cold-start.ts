import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';
import { request } from 'undici';
import { DandelionError } from '../../errors.ts';
import { type Scratch, withScratch } from './scratch.ts';
import { type RunningServer, startBundle, startNode } from './server-process.ts';
import type { Stage } from './stage.ts';
import { differenceOf, summarise } from './statistics.ts';
import { type Row, row } from './table.ts';

/** A server to start, and the first request it gets. */
interface Starter {
  name: string;
  start(): Promise<RunningServer>;
  first: { headers: Record<string, string>; body: Uint8Array; expected: number };
}

interface Series {
  readyMs: number[];
  answerMs: number[];
}

/** The least that can answer: Fastify as one bundle, ready when it listens. */
const bareServer = `
import Fastify from 'fastify';
const app = Fastify({ logger: false });
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.get('/health/ready', async () => ({ ready: true }));
app.post('/', async (request) => ({ bytes: request.body.length }));
await app.listen({ host: process.env.HOST, port: Number(process.env.PORT) });
process.send({ listening: { port: app.server.address().port } });
process.on('disconnect', () => process.exit(0));
`;

/** From the start of a process until it is ready and until its first answer, in turns with a bare server. */
export async function measureColdStart(stage: Stage): Promise<Row[]> {
  const bare = await buildBareServer(stage.options.dataDir);
  return withScratch(stage, async (scratch) => {
    const starters = await startersOf(stage, scratch, bare);
    const measured = new Map(
      starters.map(({ name }): [string, Series] => [name, { readyMs: [], answerMs: [] }]),
    );
    // The first start of each finds its files outside the page cache, and a step migrates its database.
    for (let round = -1; round < 2 * stage.options.runs; round++) {
      for (const starter of starters) {
        const { readyMs, answerMs } = await startOnce(starter);
        if (round < 0) continue;
        measured.get(starter.name)?.readyMs.push(readyMs);
        measured.get(starter.name)?.answerMs.push(answerMs);
      }
    }
    return rowsOf(measured);
  });
}

async function startersOf(stage: Stage, scratch: Scratch, bare: string): Promise<Starter[]> {
  const { logsDir, env, options } = stage;
  const { distDir } = options;
  const photo = {
    headers: { 'content-type': 'image/jpeg' },
    body: new Uint8Array(await readFile(stage.photo.path)),
  };
  // An event that preprocess refuses: it goes through the ledger to the handler, and does no work there.
  const refused = {
    headers: {
      ...{ 'ce-specversion': '1.0', 'ce-type': 'bench', 'ce-source': '/bench', 'ce-id': 'cold start' },
      'content-type': 'application/json',
    },
    body: Buffer.from('{}'),
    expected: 400,
  };
  return [
    {
      name: 'bare Fastify',
      start: () => startNode('bare-fastify', bare, { env, logsDir }),
      first: { ...photo, expected: 200 },
    },
    {
      name: 'predict',
      start: () => startBundle('predict', { distDir, env, logsDir }),
      first: { ...photo, expected: 200 },
    },
    {
      name: 'preprocess',
      start: () => startBundle('preprocess', { distDir, env: scratch.env, logsDir }),
      first: refused,
    },
  ];
}

async function startOnce({ name, start, first }: Starter): Promise<{ readyMs: number; answerMs: number }> {
  const server = await start();
  try {
    const { headers, body, expected } = first;
    const response = await request(server.url, { method: 'POST', headers, body });
    const text = await response.body.text();
    const answerMs = performance.now() - server.startedAt;
    if (response.statusCode === expected) return { readyMs: server.readyMs, answerMs };
    throw new DandelionError(
      'bad-result',
      `${name} first answered ${response.statusCode} ${text.slice(0, 300)}`,
    );
  } finally {
    await server.stop();
  }
}

async function buildBareServer(dataDir: string): Promise<string> {
  const outfile = join(dataDir, 'bare-fastify.mjs');
  await mkdir(dataDir, { recursive: true });
  await build({
    stdin: { contents: bareServer, resolveDir: import.meta.dirname, sourcefile: 'bare.ts', loader: 'ts' },
    outfile,
    ...{ bundle: true, platform: 'node', target: 'node24', format: 'esm', logLevel: 'warning' },
    ...{ minifySyntax: true, minifyWhitespace: true },
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  return outfile;
}

function rowsOf(measured: ReadonlyMap<string, Series>): Row[] {
  const bare = measured.get('bare Fastify') ?? { readyMs: [], answerMs: [] };
  return [...measured].flatMap(([name, { readyMs, answerMs }]) => {
    const rows = [
      row(`${name}: start to ready`, 'ms', summarise(readyMs)),
      row(`${name}: start to first answer`, 'ms', summarise(answerMs)),
    ];
    if (name === 'bare Fastify') return rows;
    const goal = name === 'predict' ? { atMost: 250 } : undefined;
    return [
      ...rows,
      row(`${name} - bare Fastify: start to ready`, 'ms', differenceOf(readyMs, bare.readyMs), goal),
      row(`${name} - bare Fastify: start to first answer`, 'ms', differenceOf(answerMs, bare.answerMs)),
    ];
  });
}
