import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createEvent, type Event } from '../events.ts';
import { type Platform, startPlatform } from './platform.ts';
import { writeFunction } from './testing-functions.ts';

let folder: string;
let platforms: Platform[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-platform-'));
  platforms = [];
  await addPipeline();
});

afterEach(async () => {
  await Promise.all(platforms.map((platform) => platform.stop()));
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

async function open(port = 0, dataDir = join(folder, 'data')): Promise<Platform> {
  const env = { DATABASE_URL: undefined };
  const platform = await startPlatform({ dataDir, port, distDir: join(folder, 'dist'), env });
  platforms.push(platform);
  return platform;
}

/** Functions that note that they were called and answer with the next event of the pipeline. */
async function addPipeline(): Promise<void> {
  const results = {
    ingest: 'images.ingested',
    preprocess: 'features.stored',
    train: 'model.trained',
    evaluate: 'model.approved',
    deploy: 'model.deployed',
  };
  for (const [name, noun] of Object.entries(results)) {
    await writeFunction(
      join(folder, 'dist'),
      name,
      `if (existsSync(${JSON.stringify(join(folder, `${name}.closed`))})) return reply(503);
      appendFileSync(${JSON.stringify(join(folder, 'calls'))}, '${name}\\n');
      reply(200, { 'ce-id': request.headers['ce-id'] + '.', 'ce-source': '/${name}', 'ce-specversion': '1.0',
        'ce-type': 'dev.dandelion.${noun}.v1' });`,
      "const { existsSync } = await import('node:fs');",
    );
  }
}

const request = (): Event =>
  createEvent({
    type: 'dev.dandelion.retrain.requested.v1',
    source: '/test',
    id: '1',
    data: { model: 'dandelion', source: { kind: 'folder', uri: 'file:///photos' }, seed: 1 },
  });

const calls = async () => (await readFile(join(folder, 'calls'), 'utf8').catch(() => '')).trim().split('\n');

async function untilCalls(expected: string[]): Promise<void> {
  while ((await calls()).join() !== expected.join()) await new Promise((resolve) => setTimeout(resolve, 20));
}

function isAlive(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch {
    return false;
  }
}

const pipeline = ['ingest', 'preprocess', 'train', 'evaluate', 'deploy'];

describe('the local platform', () => {
  test('leads an event at its gateway through the pipeline of the manifests', async () => {
    const { gatewayUrl, broker } = await open();
    const { data, datacontenttype: _type, ...attributes } = request();
    const response = await fetch(`${gatewayUrl}/broker`, {
      method: 'POST',
      headers: { 'content-type': 'application/cloudevents+json' },
      body: JSON.stringify({ ...attributes, data }),
    });
    expect(response.status).toBe(202);
    await broker.idle();
    expect(await calls()).toEqual(pipeline);
  });

  test('leaves nothing running when it stops, and its folder free for the next', async () => {
    const first = await open();
    await first.broker.publish(request());
    await first.broker.idle();
    const processIds = first.processes.running().map(({ processId }) => processId);
    const [postmaster] = (
      await readFile(join(folder, 'data', 'postgres', 'cluster', 'postmaster.pid'), 'utf8')
    ).split('\n');
    processIds.push(Number(postmaster));
    expect(processIds).toHaveLength(6);
    await Promise.all([first.stop(), first.stop()]);
    expect(processIds.filter(isAlive)).toEqual([]);
    await (await open()).stop();
  });

  test('refuses a folder that another platform uses', async () => {
    await open();
    await expect(open()).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('in use'),
    });
  });

  test('says which port is taken before it touches anything', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const address = taken.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    await expect(open(port)).rejects.toMatchObject({ code: 'port-in-use' });
    await expect(access(join(folder, 'data', 'postgres'))).rejects.toThrow();
    taken.close();
  });

  test('says what to do when nothing is built, and where a folder cannot be made', async () => {
    await rm(join(folder, 'dist'), { recursive: true });
    await expect(open()).rejects.toMatchObject({ message: expect.stringContaining('npm run build') });
    await writeFile(join(folder, 'file'), '');
    await expect(open(0, join(folder, 'file', 'data'))).rejects.toMatchObject({ code: 'bad-config' });
  });

  test('goes on with what was accepted after it was killed', async () => {
    await writeFile(join(folder, 'train.closed'), '');
    const { child, processIds } = await openElsewhere();
    await untilCalls(['ingest', 'preprocess']);
    child.kill('SIGKILL');
    while (processIds.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await readdir(join(folder, 'data', 'broker'))).not.toEqual([]);
    await rm(join(folder, 'train.closed'));
    const platform = await open();
    await platform.broker.idle();
    expect(await calls()).toEqual(pipeline);
    expect(await readdir(join(folder, 'data', 'broker'))).toEqual([]);
  });
});

/** A platform in a process of its own that was given the request. */
async function openElsewhere(): Promise<{ child: ChildProcess; processIds: number[] }> {
  const code = `
    const { startPlatform } = await import(${JSON.stringify(join(import.meta.dirname, 'platform.ts'))});
    const platform = await startPlatform({ dataDir: ${JSON.stringify(join(folder, 'data'))}, port: 0,
      distDir: ${JSON.stringify(join(folder, 'dist'))}, env: { DATABASE_URL: undefined } });
    await platform.broker.publish(${JSON.stringify(request())});
    while (platform.processes.running().length < 3) await new Promise((resolve) => setTimeout(resolve, 10));
    console.log(platform.processes.running().map(({ processId }) => processId).join());`;
  const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code];
  const child = spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, processIds: line.split(',').map(Number) };
  }
  throw new Error('the platform printed nothing');
}
