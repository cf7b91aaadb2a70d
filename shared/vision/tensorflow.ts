import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/** TensorFlow.js's core: tensors and operations, whatever computes them. */
export type TensorFlowCore = typeof import('@tensorflow/tfjs-core');

export interface TensorFlow {
  tf: TensorFlowCore;
  backend: 'tfjs-wasm' | 'tfjs-node';
}

/** Not a dependency: its install step downloads from beyond the registry. Used where someone installed it. */
const NATIVE_PACKAGE = '@tensorflow/tfjs-node';

let loading: Promise<TensorFlow> | undefined;

/**
 * TensorFlow.js with a backend that works, loaded once a process (its state is global): tfjs-node where it is
 * installed and passes a first calculation, else WebAssembly, which always installs.
 */
export function loadTensorFlow(): Promise<TensorFlow> {
  loading ??= loadNative().then((native) => native ?? loadWasm());
  return loading;
}

async function loadNative(): Promise<TensorFlow | undefined> {
  try {
    // A name the bundler cannot see: it must neither bundle the package nor fail where it is missing.
    const tf: TensorFlowCore = await import([NATIVE_PACKAGE].join(''));
    await tf.setBackend('tensorflow');
    // Released versions load on Node 23 and later, then fail at the first tensor.
    tf.tidy(() => tf.matMul(tf.tensor2d([[1, 2]]), tf.tensor2d([[3], [4]])).dataSync());
    return { tf, backend: 'tfjs-node' };
  } catch {
    return undefined;
  }
}

async function loadWasm(): Promise<TensorFlow> {
  const tf = await import('@tensorflow/tfjs-core');
  const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm');
  setWasmPaths(wasmFolder() + sep);
  await tf.setBackend('wasm');
  await tf.ready();
  return { tf, backend: 'tfjs-wasm' };
}

/** `wasm/` beside the bundle this module was built into, else the package's own folder. */
function wasmFolder(): string {
  const beside = join(dirname(fileURLToPath(import.meta.url)), 'wasm');
  if (existsSync(beside)) {
    // The package asks for its own folder even when it is told where its files are; an ES module bundle has none.
    if (!('__dirname' in globalThis)) Object.assign(globalThis, { __dirname: beside });
    return beside;
  }
  const require = createRequire(import.meta.url);
  return join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist');
}
