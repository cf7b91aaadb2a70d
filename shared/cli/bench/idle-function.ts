import { serveFunction } from '../../function/serve.ts';
import type { FunctionModule } from '../../function/types.ts';

/** A function that does nothing, as a durable step or as a plain call: `node idle-function.ts step|call`. */
const handler: FunctionModule['handler'] = (_event, context) =>
  context.result('dev.dandelion.prediction.made.v1', {
    model: { name: 'idle', version: 'v0000000000' },
    latencyMs: 0,
  });

const [, , kind = 'call'] = process.argv;
await serveFunction(`idle-${kind}`, kind === 'step' ? { handler, durable: true } : { handler });
