import { once } from 'node:events';
import { createServer } from 'node:http';
import { createLogger } from './log.ts';
import { createFunctionServer } from './server.ts';
import type { FunctionModule } from './types.ts';

const NO_SUCH_KEY = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey</Code></Error>';
/** More than it takes; what it is for is worth no more. */
const TIME_LIMIT_MS = 10_000;

/**
 * Goes through a start as far as it goes without stores: server, probe, and `init` until an empty object store ends it.
 * What ran is what V8 keeps compiled for real starts: until predict has its model, 590 ms of CPU instead of 770.
 */
export async function rehearseStart(name: string, module: FunctionModule): Promise<void> {
  const store = createServer((request, response) => {
    request.resume();
    response.writeHead(404, { 'content-type': 'application/xml' });
    // What says nothing is asked again by the AWS SDK, which is to be kept compiled too.
    response.end(request.headers['amz-sdk-request'] === undefined ? '' : NO_SUCH_KEY);
  });
  store.listen(0, '127.0.0.1');
  await once(store, 'listening');
  const address = store.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const env = {
    ...{ HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'silent', MODEL_VERSION: 'v0000000000' },
    ...{ S3_ENDPOINT: `http://127.0.0.1:${port}`, AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' },
  };
  const server = createFunctionServer(module, { name, env, logger: createLogger({ name, level: 'silent' }) });
  const { url } = await server.listen();
  await fetch(`${url}/health/live`).then((response) => response.arrayBuffer());
  // Ends by what the stores lack; what came before has run.
  await Promise.race([
    server.init().catch(() => {}),
    new Promise((end) => setTimeout(end, TIME_LIMIT_MS).unref()),
  ]);
}
