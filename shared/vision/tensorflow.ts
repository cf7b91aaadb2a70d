import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DandelionError } from '../errors.ts';

/** TensorFlow.js's core: tensors and operations, whatever computes them. */
export type TensorFlowCore = typeof import('@tensorflow/tfjs-core');

export type TensorFlowBackend = 'tfjs-wasm' | 'tfjs-node';

export interface TensorFlow {
  tf: TensorFlowCore;
  backend: TensorFlowBackend;
}

/** Not a dependency: its install step downloads from beyond the registry. Used where someone installed it. */
const NATIVE_PACKAGE = '@tensorflow/tfjs-node';

let loading: Promise<TensorFlow> | undefined;

/**
 * TensorFlow.js with a backend that works, loaded once a process (its state is global): tfjs-node where it is
 * installed and passes a first calculation, else WebAssembly, which always installs.
 *
 * @param wanted that backend and no other
 * @throws DandelionError `bad-config` when tfjs-node is wanted and does not work here, `internal` when the process
 *   already computes with another backend than the one wanted
 */
export async function loadTensorFlow(wanted?: TensorFlowBackend): Promise<TensorFlow> {
  loading ??= load(wanted);
  const loaded = await loading;
  if (wanted === undefined || wanted === loaded.backend) return loaded;
  throw new DandelionError(
    'internal',
    `This process computes with ${loaded.backend}; ${wanted} needs one of its own.`,
  );
}

async function load(wanted: TensorFlowBackend | undefined): Promise<TensorFlow> {
  const native = wanted === 'tfjs-wasm' ? undefined : await loadNative();
  if (native !== undefined) return native;
  if (wanted !== 'tfjs-node') return loadWasm();
  throw new DandelionError(
    'bad-config',
    `${NATIVE_PACKAGE} is not installed or does not run on Node ${process.versions.node}.`,
  );
}

/** Whether someone installed tfjs-node; on this Node it may fail all the same. */
export function isNativeInstalled(): boolean {
  try {
    createRequire(import.meta.url).resolve(NATIVE_PACKAGE);
    return true;
  } catch {
    return false;
  }
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
