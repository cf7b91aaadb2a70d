import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'esbuild';
import { nativePackages } from './native-packages.ts';

/** Where packages are looked for. */
const resolveDir = join(import.meta.dirname, '../../..');

/** Found by dynamic import where someone installed it; never required, so never in a bundle. */
export const optionalPackages = ['@tensorflow/tfjs-node'];

/**
 * The AWS SDK names CommonJS files first, of which all commands of S3 would go into a bundle. Its ES modules leave out
 * what nobody imports: a third of the time to load them.
 */
export const shakableAws: Plugin = {
  name: 'shakable-aws',
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^@(aws-sdk|smithy)\// }, async ({ path, pluginData, ...place }) => {
      if (pluginData === shakableAws) return undefined;
      const found = await resolve(path, { ...place, pluginData: shakableAws });
      const shakable = found.path.replace('/dist-cjs/', '/dist-es/');
      return existsSync(shakable) ? { ...found, path: shakable } : found;
    });
  },
};

/**
 * In a bundle that is split, a CommonJS package that is imported on demand has no named exports. So it gets a module of
 * its own that names them, as Node itself does.
 */
export const namedOnDemand: Plugin = {
  name: 'named-on-demand',
  setup({ onResolve, onLoad }) {
    const namespace = 'on-demand';
    const external = [...Object.keys(nativePackages), ...optionalPackages];
    onResolve({ filter: /^[@a-z]/ }, ({ path, kind, importer }) => {
      if (kind !== 'dynamic-import' || importer.includes('node_modules')) return undefined;
      const isLeft = external.includes(path) || /^(node:|@aws-sdk\/)/.test(path);
      return isLeft ? undefined : { path, namespace };
    });
    onLoad({ filter: /.*/, namespace }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => /^[\w$]+$/.test(name));
      return { contents: `export { ${names.join(', ')} } from ${JSON.stringify(path)};`, resolveDir };
    });
  },
};

/**
 * An ES module's import of node:http reads all of its properties and so loads undici, behind its WebSocket: 12 ms of each
 * start. Who requires it gets it as it is.
 */
export const requiredHttp: Plugin = {
  name: 'required-http',
  setup({ onResolve, onLoad }) {
    const namespace = 'required';
    onResolve({ filter: /^(node:)?http$/ }, ({ kind }) =>
      kind === 'import-statement' ? { path: 'node:http', namespace } : undefined,
    );
    onLoad({ filter: /.*/, namespace }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};
