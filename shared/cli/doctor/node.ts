import { DandelionError } from '../../errors.ts';
import { type Check, timed } from './check.ts';

const NODE_AT_LEAST = 24;

/** Packages with a library for each platform. */
const nativePackages: Record<string, () => Promise<unknown>> = {
  'onnxruntime-node': () => import('onnxruntime-node'),
  sharp: () => import('sharp'),
  '@julusian/jpeg-turbo': () => import('@julusian/jpeg-turbo'),
};

export const node: Check = {
  name: 'Node',
  async look() {
    const version = process.version.slice(1);
    if (Number.parseInt(version, 10) < NODE_AT_LEAST) {
      throw new DandelionError('bad-config', `Node ${version} is too old: install Node ${NODE_AT_LEAST}.`);
    }
    return { status: 'ok', version, detail: `${process.platform}-${process.arch}` };
  },
};

export const libraries: Check = {
  name: 'Native packages',
  async look() {
    const { answer: faults, latencyMs } = await timed(async () => {
      const loaded = Object.entries(nativePackages).map(async ([name, load]) => {
        const fault = await load().then(
          () => undefined,
          (error: unknown) => (error instanceof Error ? error.message.split('\n')[0] : String(error)),
        );
        return fault === undefined ? [] : [`${name} (${fault})`];
      });
      return (await Promise.all(loaded)).flat();
    });
    if (faults.length > 0) {
      throw new DandelionError(
        'bad-config',
        `These do not load here: ${faults.join('; ')}. Run npm ci --include=optional on this very platform.`,
      );
    }
    return { status: 'ok', latencyMs, detail: `${Object.keys(nativePackages).join(', ')} load` };
  },
};
