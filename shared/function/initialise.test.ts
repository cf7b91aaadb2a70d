import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import { type TestDatabase, testDatabase } from '../stores/testing.ts';
import { createLogger } from './log.ts';
import { createFunctionServer, type FunctionServer } from './server.ts';
import type { FunctionModule } from './types.ts';

let database: TestDatabase;
let server: FunctionServer | undefined;
beforeAll(async () => {
  database = await testDatabase();
});
afterEach(() => server?.close());
afterAll(() => database.drop());

/** A function whose store is down until it is said to be up; the trouble is wrapped, as a model that cannot be loaded. */
function needsStore(): FunctionModule & { up: boolean } {
  const module = {
    up: false,
    async init() {
      if (module.up) return;
      const cause = new DandelionError('store-unavailable', 'S3 at http://minio:9000 does not answer.');
      throw new DandelionError('model-broken', 'The model cannot be loaded.', { cause });
    },
    handler: async () => 'ready',
  };
  return module;
}

async function start(module: FunctionModule, env: Record<string, string>) {
  const logger = createLogger({ name: 'f', level: 'silent' });
  server = createFunctionServer(module, { name: 'f', env: { PORT: '0', ...env }, logger });
  const { url } = await server.listen();
  return { url, initialised: server.init() };
}

const ready = async (url: string) => {
  const response = await fetch(`${url}/health/ready`);
  const { detail } = (await response.json()) as { detail?: string };
  return { status: response.status, detail };
};

describe('a function that starts before its stores', () => {
  it('waits for them, not ready, and says for what', async () => {
    const module = needsStore();
    const { url, initialised } = await start(module, { INIT_PATIENCE_MS: '60000' });
    await expect
      .poll(() => ready(url))
      .toMatchObject({ status: 503, detail: expect.stringContaining('minio:9000') });
    module.up = true;
    await initialised;
    expect(await ready(url)).toMatchObject({ status: 200 });
    expect(await (await fetch(url)).text()).toBe('ready');
  });

  it('gives up when they do not come in time, and at once where nobody said to wait', async () => {
    const { initialised } = await start(needsStore(), { INIT_PATIENCE_MS: '600' });
    await expect(initialised).rejects.toMatchObject({ code: 'model-broken' });
    await server?.close();
    const impatient = await start(needsStore(), {});
    await expect(impatient.initialised).rejects.toMatchObject({ code: 'model-broken' });
  });

  it('does not wait for what stays wrong', async () => {
    const broken: FunctionModule = {
      async init() {
        throw new DandelionError('model-broken', 'The graph is damaged.');
      },
      handler: async () => undefined,
    };
    const { initialised } = await start(broken, { INIT_PATIENCE_MS: '60000' });
    await expect(initialised).rejects.toMatchObject({ code: 'model-broken' });
  });
});
