/**
 * Builds every function into `dist/<function>/`: one bundle, another for worker threads where it has a `worker.ts`,
 * the native packages they use on this platform, its data files, and a bill of what is inside. A function's folder is
 * all that its container image needs. `--platform linux/arm64`: for another platform, below `dist/platforms/`.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { build, type Metafile } from 'esbuild';
import { billOfMaterials, packagePathOf } from './shared/cli/build/bill-of-materials.ts';
import { readLock } from './shared/cli/build/lock.ts';
import {
  layFile,
  layNativePackages,
  nativePackages,
  readManifest,
} from './shared/cli/build/native-packages.ts';
import {
  bundlesOf,
  containerPlatform,
  installForPlatform,
  isOwn,
  ownPlatform,
} from './shared/cli/build/platform.ts';
import { namedOnDemand, optionalPackages, requiredHttp, shakableAws } from './shared/cli/build/plugins.ts';

const root = import.meta.dirname;
const { platform: wanted } = parseArgs({ options: { platform: { type: 'string' } } }).values;
const platform = wanted === undefined ? ownPlatform : containerPlatform(wanted);
const dist = bundlesOf(join(root, 'dist'), platform);
/** Which result leads to which function, as monitor needs to know too. */
const eventing = join(root, 'knative/base/eventing');

/**
 * What `node index.mjs` runs: the bundle, from V8's compiled code where there is some that fits this Node
 * (https://nodejs.org/api/module.html#module-compile-cache). Compiling predict took 130 ms of each start. The code is found
 * by names relative to its folder, since an image has the bundle elsewhere than this machine.
 */
const startFile = `import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
process.env.NODE_COMPILE_CACHE_PORTABLE = '1';
enableCompileCache(join(import.meta.dirname, 'compiled'));
const { start, rehearse } = await import('./function.mjs');
if (process.argv[2] !== '--compile-only') await start();
else {
  await rehearse?.();
  process.exit();
}
`;

/** The user that knative/Dockerfile names: Node looks for compiled code in a folder of the user's own. */
const imageUser = 65532;

const productVersion = (await readManifest(root)).version;
const lock = await readLock(root);
const modules = join(root, 'node_modules');
const commit = gitCommit();
const stampFile = join(dist, 'stamp');
const packageSources: string[] = [modules];
const stamp = await stampOfSources();
if ((await readFile(stampFile, 'utf8').catch(() => '')) !== stamp) {
  await mkdir(dist, { recursive: true });
  if (!isOwn(platform)) packageSources.unshift(await installForPlatform(lock, platform, join(root, 'dist')));
  // One after the other: side by side they are no faster, each bundle uses all cores, and take five times the memory.
  for (const name of await functionNames()) await buildFunction(name);
  await buildGateway();
  await buildKibana();
  await writeFile(stampFile, stamp);
}

/** Changes with whatever a bundle is made of: sources, packages, this program, the platform and the commit. */
async function stampOfSources(): Promise<string> {
  const hash = createHash('sha256').update(`${platform.os} ${platform.cpu} ${commit}`);
  const sources = await Promise.all(
    ['functions', 'shared', 'knative/base/eventing', 'knative/kibana'].map((folder) =>
      readdir(join(root, folder), { withFileTypes: true, recursive: true }),
    ),
  );
  const files = sources.flat().filter((entry) => entry.isFile() && !entry.name.includes('.test.'));
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).sort();
  for (const path of [...paths, join(root, 'build.ts'), join(root, 'package-lock.json')]) {
    hash.update(`${relative(root, path)}\n`).update(await readFile(path));
  }
  return hash.digest('hex');
}

async function functionNames(): Promise<string[]> {
  const entries = await readdir(join(root, 'functions'), { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

async function buildFunction(name: string): Promise<void> {
  const entries = [{ name: 'function', contents: entryPoint(name) }];
  if (existsSync(join(root, 'functions', name, 'worker.ts'))) {
    entries.push({ name: 'worker', contents: `import './functions/${name}/worker.ts';` });
  }
  await buildFolder(name, entries);
}

/** Broker and gateway for where functions are containers of their own; no function, so it stands apart. */
function buildGateway(): Promise<void> {
  const contents = "export { serveGateway as start } from './shared/local/serve-gateway.ts';";
  return buildFolder('local/gateway', [{ name: 'function', contents }]);
}

/** What gives Kibana its dashboards, for Docker Compose. */
function buildKibana(): Promise<void> {
  return buildFolder('local/kibana', [
    { name: 'function', contents: "export { start } from './shared/cli/kibana.ts';" },
  ]);
}

async function buildFolder(path: string, entries: { name: string; contents: string }[]): Promise<void> {
  const name = basename(path);
  // Made beside its place and moved there: another build, or a platform that runs, never meets half a function.
  const folder = join(dist, `.${name}.${process.pid}`);
  const metafile = joined(
    await Promise.all(entries.map((entry) => bundle(folder, entry.name, entry.contents))),
  );
  const dependencies = await layNativePackages(nativeImports(metafile), {
    ...{ folder, platform, sources: packageSources },
  });
  await layDataFiles(name, folder, metafile);
  const manifest = {
    name: `dandelion-${name}`,
    version: productVersion,
    private: true,
    type: 'module',
    dependencies,
  };
  await writeFile(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  const paths = [
    ...bundledPackages(metafile),
    ...Object.keys(dependencies).map((each) => `node_modules/${each}`),
  ];
  const bill = billOfMaterials(manifest.name, productVersion, lock, paths);
  await writeFile(join(folder, 'sbom.cdx.json'), `${JSON.stringify(bill, null, 2)}\n`);
  await writeFile(join(folder, 'index.mjs'), startFile);
  // V8's compiled code fits one kind of machine; on another the first start compiles.
  if (isOwn(platform)) await compileAhead(folder);
  await replaceFolder(folder, join(dist, path));
}

async function replaceFolder(source: string, target: string): Promise<void> {
  const old = `${source}.old`;
  await mkdir(dirname(target), { recursive: true });
  await rename(target, old).catch(ignoreMissing);
  await rename(source, target).catch(async (error: NodeJS.ErrnoException) => {
    // Another build was first; what it made of the same sources is as good.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    await rm(source, { recursive: true, force: true });
  });
  await rm(old, { recursive: true, force: true });
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

/** Makes one `.mjs` of an entry and everything it imports. */
async function bundle(folder: string, name: string, contents: string): Promise<Metafile> {
  const { metafile } = await build({
    stdin: {
      contents,
      resolveDir: root,
      sourcefile: `${basename(folder).split('.')[1]}.${name}.ts`,
      loader: 'ts',
    },
    outdir: folder,
    entryNames: name,
    chunkNames: `${name}-[name]-[hash]`,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    // What is imported on demand only is a file of its own: a start reads no more than it needs.
    splitting: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: 'linked',
    sourcesContent: false,
    metafile: true,
    logLevel: 'warning',
    plugins: [namedOnDemand, shakableAws, requiredHttp],
    external: [...Object.keys(nativePackages), ...optionalPackages],
    define: {
      'process.env.PRODUCT_VERSION': JSON.stringify(productVersion),
      'process.env.GIT_COMMIT': JSON.stringify(commit),
    },
    banner: {
      // Bundled CommonJS packages call require for Node's own modules.
      js: "import { createRequire as createRequireOfBundle } from 'node:module'; const require = createRequireOfBundle(import.meta.url);",
    },
  });
  return metafile;
}

function joined(metafiles: Metafile[]): Metafile {
  return {
    inputs: Object.assign({}, ...metafiles.map(({ inputs }) => inputs)),
    outputs: Object.assign({}, ...metafiles.map(({ outputs }) => outputs)),
  };
}

function entryPoint(name: string): string {
  return [
    `import * as functionModule from './functions/${name}/handler.ts';`,
    `import { serveFunction } from './shared/function/serve.ts';`,
    `import { rehearseStart } from './shared/function/rehearse.ts';`,
    `export const start = () => serveFunction(${JSON.stringify(name)}, functionModule);`,
    `export const rehearse = () => rehearseStart(${JSON.stringify(name)}, functionModule);`,
  ].join('\n');
}

/** Fills the compile cache by a start without stores, since a container's file system may be read-only. */
async function compileAhead(folder: string): Promise<void> {
  execFileSync(process.execPath, ['index.mjs', '--compile-only'], { cwd: folder, stdio: 'inherit' });
  const compiled = join(folder, 'compiled');
  for (const own of await readdir(compiled).catch(() => [])) {
    // Node writes them for their owner alone.
    for (const file of await readdir(join(compiled, own))) await chmod(join(compiled, own, file), 0o644);
    const images = own.replace(/\d+$/, String(imageUser));
    if (images !== own) await symlink(own, join(compiled, images));
  }
}

/** Native packages that the bundle imports. */
function nativeImports(metafile: Metafile): string[] {
  return Object.values(metafile.outputs)
    .flatMap((output) => output.imports)
    .filter((entry) => entry.external === true && entry.path in nativePackages)
    .map((entry) => entry.path);
}

/** Packages of which something was left after unused code was dropped. */
function bundledPackages(metafile: Metafile): string[] {
  return Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).flatMap(([file, { bytesInOutput }]) =>
      bytesInOutput > 0 ? (packagePathOf(file) ?? []) : [],
    ),
  );
}

async function layDataFiles(name: string, folder: string, metafile: Metafile): Promise<void> {
  const usesWasm = Object.keys(metafile.inputs).some((input) =>
    input.includes('@tensorflow/tfjs-backend-wasm/'),
  );
  if (usesWasm) {
    const source = join(modules, '@tensorflow/tfjs-backend-wasm/dist');
    const files = (await readdir(source)).filter((file) => file.endsWith('.wasm'));
    await mkdir(join(folder, 'wasm'), { recursive: true });
    for (const file of files) await layFile(join(source, file), join(folder, 'wasm', file));
  }
  const routes = ['functions/monitor/reconciler.ts', 'shared/local/serve-gateway.ts'];
  if (Object.keys(metafile.inputs).some((input) => routes.includes(input))) {
    await cp(eventing, join(folder, 'eventing'), { recursive: true });
  }
  if ('shared/cli/kibana.ts' in metafile.inputs) {
    await cp(join(root, 'knative/kibana'), join(folder, 'kibana'), { recursive: true });
  }
  const staticFolder = join(root, 'functions', name, 'static');
  await cp(staticFolder, join(folder, 'static'), { recursive: true }).catch(ignoreMissing);
}

/** The commit a model was trained by, for its record; empty outside a checkout. */
function gitCommit(): string {
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return '';
  }
}
