import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { objectSettings, readConfig } from '../config.ts';
import { encodeStructured } from '../function/cloudevents.ts';
import { openObjects } from '../stores/objects.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { drawPhoto } from '../vision/drawn.ts';
import { type FunctionProcess, startFunctionProcess } from './function-process.ts';
import { freePort } from './guarded-process.ts';
import { openLogFile } from './log-file.ts';
import { addressFunctions, functionUrls } from './remote-functions.ts';
import {
  auditPipeline,
  drawFolder,
  type PhotoCounts,
  quickPipelineEnv,
  requestFor,
  waitForPipeline,
} from './testing-pipelines.ts';

const dist = resolve(import.meta.dirname, '../../dist');
const names = ['ingest', 'preprocess', 'train', 'evaluate', 'deploy', 'predict', 'monitor', 'webapp'];
const classes: PhotoCounts = { dandelion: 20, grass: 20 };
const token = 'token-of-the-tests';
const authorization = `Bearer ${token}`;

let folder: string;
let database: TestDatabase;
let env: Record<string, string | undefined>;
let functions: FunctionProcess[] = [];
let gateway: ChildProcess | undefined;
let url: string;

/** As a container would: settings in the environment, nothing else. */
async function startGatewayProcess(): Promise<void> {
  gateway = spawn(process.execPath, [join(dist, 'local/gateway/index.mjs')], { env, stdio: 'inherit' });
  while (!(await fetch(`${url}/health/live`).catch(() => undefined))?.ok) {
    if (gateway.exitCode !== null) throw new Error(`the gateway ended with ${gateway.exitCode}`);
    await sleep(50);
  }
}

async function endGateway(signal: NodeJS.Signals): Promise<void> {
  if (gateway === undefined || gateway.exitCode !== null) return;
  const ended = once(gateway, 'exit');
  gateway.kill(signal);
  await ended;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-gateway-'));
  database = await testDatabase();
  await drawFolder(join(folder, 'photos'), classes, 1);
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const common = {
    ...(await quickPipelineEnv(folder)),
    ...{ PATH: process.env.PATH, LOG_LEVEL: 'warn', DATABASE_URL: database.url, MODEL_NAME: 'contained' },
    ...{ OBJECTS_DIR: join(folder, 'objects'), TRACKING_DIR: join(folder, 'tracking') },
    ...{ DANDELION_TOKEN: token, K_SINK_TOKEN: token, PREDICTION_LOG_FLUSH_MS: '50' },
    // No name of this machine alone, so that the token is sent only because K_SINK_TOKEN says so.
    K_SINK: `http://0.0.0.0:${port}/broker`,
  };
  functions = await Promise.all(
    names.map((name) =>
      startFunctionProcess({
        ...{ name, entry: join(dist, name, 'index.mjs'), env: common, startTimeoutMs: 60_000 },
        log: openLogFile(join(folder, `${name}.log`)),
      }),
    ),
  );
  const urls = names.map((name, index) => `${name}=${functions[index]?.url}`);
  env = {
    ...{ ...common, PORT: String(port), HOST: '0.0.0.0', DATA_DIR: join(folder, 'gateway') },
    FUNCTION_URLS: urls.join(','),
  };
  await startGatewayProcess();
});
afterAll(async () => {
  await endGateway('SIGTERM');
  await Promise.all(functions.map((each) => each.stop(5000)));
  await database?.drop();
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

describe('the gateway before functions that run elsewhere', () => {
  it('leads an event through the pipeline although it is killed on the way, and shows its answers', async () => {
    const request = requestFor('contained', join(folder, 'photos'));
    const { headers, body } = encodeStructured(request);
    const post = (given: Record<string, string>) =>
      fetch(`${url}/broker`, {
        method: 'POST',
        headers: { ...headers, ...given },
        body: body?.toString() ?? '',
      });
    expect((await post({})).status).toBe(401);
    expect((await post({ authorization })).status).toBe(202);
    await endGateway('SIGKILL');
    await startGatewayProcess();
    await waitForPipeline(database.db, request, 60_000);
    const objects = openObjects(readConfig(objectSettings, env));
    const stores = { database: database.db, objects, trackingDir: join(folder, 'tracking') };
    expect(await auditPipeline(stores, request, classes)).toEqual([]);

    const photo = new Uint8Array(await drawPhoto('grass', 500));
    const ask = () => fetch(`${url}/v2/models/contained/ready`).then((response) => response.status);
    await expect.poll(ask, { timeout: 20_000 }).toBe(200);
    const answer = await fetch(`${url}/function/predict/`, {
      ...{ method: 'POST', headers: { 'content-type': 'image/jpeg' }, body: photo },
    });
    expect(await answer.json()).toMatchObject({ model: { name: 'contained' } });
    const logged = async () => (await database.db`select 1 from predictions`).length;
    await expect.poll(logged, { timeout: 20_000 }).toBe(1);
    expect(await (await fetch(`${url}/`)).text()).toContain('<html');
    expect(await (await fetch(`${url}/pipeline`)).json()).toMatchObject({ champion: { name: 'contained' } });
  });

  it('names the functions it knows when asked for another', async () => {
    const answer = await fetch(`${url}/function/nothing/`, { headers: { authorization } });
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({
      detail: expect.stringContaining('FUNCTION_URLS names: deploy'),
    });
  });
});

describe('FUNCTION_URLS', () => {
  it('says which entry is no name and address', () => {
    expect(functionUrls.safeParse('ingest=http://ingest:8080, train').error?.message).toContain(
      '\\"train\\"',
    );
    expect(functionUrls.safeParse('ingest=ftp://ingest').success).toBe(false);
  });

  it('leaves out a slash at the end', async () => {
    const functions = addressFunctions(functionUrls.parse('ingest=http://ingest:8080/'));
    expect((await functions.acquire('ingest')).url).toBe('http://ingest:8080');
  });
});
