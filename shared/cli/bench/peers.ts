import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { WantedPeers } from './options.ts';
import { type RunningServer, startServer } from './server-process.ts';
import type { Stage } from './stage.ts';

const run = promisify(execFile);
const folder = join(import.meta.dirname, 'peers');

/** A server of others that answers a photo's bytes at `/`. */
interface Peer {
  name: string;
  requirements: string;
  readyPath: string;
  /** Program of the virtual environment with its parameters, on this port. */
  command(port: number): string[];
}

const uvicorn = (module: string) => (port: number) => [
  ...['uvicorn', `${module}:app`, '--app-dir', folder, '--host', '127.0.0.1', '--port', String(port)],
  // Its usual log of every request would only slow it down.
  ...['--log-level', 'warning', '--no-access-log'],
];

const onnxPeers: Peer[] = [
  {
    name: 'FastAPI',
    requirements: 'requirements.txt',
    readyPath: '/ready',
    command: uvicorn('fastapi_pillow'),
  },
  {
    name: 'BentoML',
    requirements: 'requirements.txt',
    readyPath: '/readyz',
    command: (port) => [
      ...['bentoml', 'serve', '--working-dir', folder, 'bentoml_pillow:Classifier'],
      ...['--host', '127.0.0.1', '--port', String(port)],
    ],
  },
];

const tensorflowPeer: Peer = {
  name: 'FastAPI TensorFlow',
  requirements: 'requirements-tensorflow.txt',
  readyPath: '/ready',
  command: uvicorn('fastapi_tensorflow'),
};

/**
 * Starts the wanted peers with the model that predict serves, in a virtual environment of the bench's own. One that
 * cannot be had is left out, and said so.
 */
export async function startPeers(stage: Stage, wanted: WantedPeers): Promise<RunningServer[]> {
  if (wanted === 'none') return [];
  if (!('serving.onnx' in stage.model.files)) {
    stage.say('No peers: this model has no ONNX graph that they could serve (there was no backbone).');
    return [];
  }
  const started: RunningServer[] = [];
  for (const peer of wanted === 'all' ? [...onnxPeers, tensorflowPeer] : onnxPeers) {
    const server = await startPeer(stage, peer).catch((error: unknown) => {
      stage.say(`No ${peer.name}: ${firstLines(error)}`);
      return undefined;
    });
    if (server !== undefined) started.push(server);
  }
  return started;
}

async function startPeer(stage: Stage, peer: Peer): Promise<RunningServer> {
  const environment = join(stage.options.dataDir, 'venv');
  await install(environment, peer.requirements, stage.say);
  const { name, version, classes } = stage.model;
  const bin = join(environment, process.platform === 'win32' ? 'Scripts' : 'bin');
  return startServer({
    name: peer.name,
    command: (port) => {
      const [program = '', ...parameters] = peer.command(port);
      // Not the scripts of the virtual environment: they name their interpreter by a path that may be too long.
      return [join(bin, 'python'), '-m', program, ...parameters];
    },
    env: {
      ...process.env,
      MODEL: join(stage.options.dataDir, 'objects/models', name, version, 'serving.onnx'),
      CLASSES: classes.join(','),
      // As many as predict's own engine takes.
      THREADS: String(Math.min(4, availableParallelism())),
      PYTHONDONTWRITEBYTECODE: '1',
      TF_CPP_MIN_LOG_LEVEL: '2',
      BENTOML_HOME: join(stage.options.dataDir, 'bentoml'),
      BENTOML_DO_NOT_TRACK: 'True',
    },
    logsDir: stage.logsDir,
    readyPath: peer.readyPath,
  });
}

/** Pinned packages, once; another list of pins is installed anew. */
async function install(environment: string, requirements: string, say: Stage['say']): Promise<void> {
  const list = join(folder, requirements);
  const mark = join(environment, `${requirements}.installed`);
  const digest = createHash('sha256')
    .update(await readFile(list))
    .digest('hex');
  if ((await readFile(mark, 'utf8').catch(() => '')) === digest) return;
  const python = join(environment, process.platform === 'win32' ? 'Scripts/python' : 'bin/python');
  const present = await run(python, ['--version']).catch(() => undefined);
  if (present === undefined) {
    await rm(environment, { recursive: true, force: true });
    await mkdir(environment, { recursive: true });
    await run('python3', ['-m', 'venv', environment]).catch((error: unknown) => {
      throw new Error(`python3 cannot make a virtual environment here (${firstLines(error)})`);
    });
  }
  say(`Installing ${requirements} for the peers: a minute or two, once ...`);
  const flags = ['--quiet', '--disable-pip-version-check', '--only-binary', ':all:'];
  await run(python, ['-m', 'pip', 'install', ...flags, '-r', list], { maxBuffer: 64 * 1024 * 1024 });
  await writeFile(mark, digest);
}

function firstLines(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n').slice(0, 6).join(' ').slice(0, 800);
}
