/** `npm run images`: a container image of every function and of the gateway, by docker where it runs, else as OCI archives. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DandelionError } from '../errors.ts';
import { type ImageConfig, type ImageOptions, type Layer, makeLayer, writeArchive } from './image-archive.ts';
import { makeBaseLayer } from './image-base.ts';

const root = join(import.meta.dirname, '../..');
const usage = `npm run images -- [function ...]
  --prefix NAME     before the function's name (default dev.local/dandelion-)
  --tag TAG         default dev; no "latest", which Kubernetes would pull again
  --platform LIST   linux/amd64, linux/arm64 (default: this machine's)
  --base BASE       docker: name of the base image; else a folder with a root file system
  --archive         an OCI archive in dist/images/ although docker runs
  --push            docker: to the registry, with provenance and SBOM
  --json            the table as JSON`;

interface Row {
  function: string;
  image: string;
  platform: string;
  archive?: string;
  digest?: string;
  compressedBytes?: number;
  unpackedBytes?: number;
  /** Of unpackedBytes: Node and its libraries, the same in all images. */
  baseBytes?: number;
}

type Options = Awaited<ReturnType<typeof readOptions>>;

async function readOptions(words: string[]) {
  const { values, positionals } = parseArgs({
    args: words,
    allowPositionals: true,
    options: {
      prefix: { type: 'string', default: 'dev.local/dandelion-' },
      tag: { type: 'string', default: 'dev' },
      platform: { type: 'string', default: `linux/${process.arch === 'arm64' ? 'arm64' : 'amd64'}` },
      base: { type: 'string' },
      archive: { type: 'boolean', default: false },
      push: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const built = await imageNames();
  const unknown = positionals.filter((name) => !built.includes(name));
  if (unknown.length > 0) {
    throw new DandelionError(
      'bad-config',
      `There is no function ${unknown.join(', ')}; there are: ${built.join(', ')}.`,
    );
  }
  const platforms = values.platform.split(',');
  for (const platform of platforms) {
    if (platform !== 'linux/amd64' && platform !== 'linux/arm64') {
      throw new DandelionError(
        'bad-config',
        `--platform ${platform}: there are linux/amd64 and linux/arm64.`,
      );
    }
  }
  return { ...values, platforms, functions: positionals.length > 0 ? positionals : built };
}

/** Broker and gateway where there is no Knative; no function, but an image as theirs. */
const gateway = 'gateway';

async function imageNames(): Promise<string[]> {
  const entries = await readdir(join(root, 'functions'), { withFileTypes: true });
  return [...entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name), gateway];
}

/** `dist/` holds the native packages of the machine that built it; the others are laid by a build for them. */
function contextOf(name: string, platform: string): string {
  const own = `linux/${process.arch === 'arm64' ? 'arm64' : 'amd64'}`;
  if (platform === own) return join(root, 'dist', name === gateway ? join('local', name) : name);
  throw new DandelionError(
    'bad-config',
    `An image for ${platform} is built on a machine of that kind: this one has the native packages of ${own}.`,
  );
}

function hasDocker(): boolean {
  return (
    spawnSync('docker', ['buildx', 'version'], { stdio: 'ignore' }).status === 0 &&
    spawnSync('docker', ['info'], { stdio: 'ignore' }).status === 0
  );
}

/** Source: OCI Image Format Specification, annotations.md. */
function annotationsOf(name: string, version: string): Record<string, string> {
  const revision = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' });
  return {
    'org.opencontainers.image.title': `dandelion-${name}`,
    'org.opencontainers.image.description': `The function ${name} of Dandelion`,
    'org.opencontainers.image.licenses': 'Apache-2.0',
    'org.opencontainers.image.version': version,
    ...(revision.status === 0 ? { 'org.opencontainers.image.revision': revision.stdout.trim() } : {}),
  };
}

/** Reads what a container starts with from the Dockerfile, so that there is one place that says it. */
export function parseDockerfile(text: string): ImageConfig {
  const config: ImageConfig = {
    Env: [],
    WorkingDir: '/',
    User: '',
    Entrypoint: [],
    ExposedPorts: {},
    Labels: {},
  };
  for (const line of text.split('\n')) {
    const [, word = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line.trim()) ?? [];
    if (word === 'ENV') config.Env.push(...rest.split(/\s+/));
    if (word === 'WORKDIR') config.WorkingDir = rest;
    if (word === 'USER') config.User = rest;
    if (word === 'EXPOSE') config.ExposedPorts[`${rest}/tcp`] = {};
    if (word === 'ENTRYPOINT') config.Entrypoint = JSON.parse(rest) as string[];
    if (word === 'RUN' || word === 'ADD')
      throw new Error(`knative/Dockerfile: ${word} cannot be carried out here`);
  }
  return config;
}

async function buildByDocker(name: string, options: Options, version: string): Promise<Row> {
  const image = `${options.prefix}${name}:${options.tag}`;
  const labels = Object.entries(annotationsOf(name, version)).map(
    ([key, value]) => `--label=${key}=${value}`,
  );
  const words = [
    ...['buildx', 'build', '--file', join(root, 'knative/Dockerfile'), '--tag', image],
    ...['--platform', options.platform, ...labels],
    ...(options.base === undefined ? [] : ['--build-arg', `BASE=${options.base}`]),
    ...(options.push ? ['--push', '--provenance=mode=max', '--sbom=true'] : ['--load']),
    contextOf(name, options.platforms[0] ?? ''),
  ];
  for (const platform of options.platforms) contextOf(name, platform);
  execFileSync('docker', words, { stdio: ['ignore', 'inherit', 'inherit'] });
  const row: Row = { function: name, image, platform: options.platform };
  if (options.push) return row;
  const size = execFileSync('docker', ['image', 'inspect', '--format', '{{.Size}}', image], {
    encoding: 'utf8',
  });
  return { ...row, unpackedBytes: Number(size) };
}

async function buildArchive(
  name: string,
  options: Options,
  bases: Map<string, Layer>,
  version: string,
): Promise<Row> {
  const image = `${options.prefix}${name}:${options.tag}`;
  const config = parseDockerfile(await readFile(join(root, 'knative/Dockerfile'), 'utf8'));
  const images: ImageOptions[] = [];
  for (const platform of options.platforms) {
    const base = bases.get(platform);
    if (base === undefined) throw new Error(`no base for ${platform}`);
    const own = await makeLayer(contextOf(name, platform), '/app', (path) => path.endsWith('.map'));
    const architecture = platform.endsWith('arm64') ? 'arm64' : 'amd64';
    images.push({ name: image, architecture, config, layers: [base, own] });
  }
  await mkdir(join(root, 'dist/images'), { recursive: true });
  const archive = join(root, 'dist/images', `${name}.tar`);
  const digest = await writeArchive(archive, images, annotationsOf(name, version));
  const layers = images[0]?.layers ?? [];
  return {
    function: name,
    image,
    platform: options.platform,
    archive,
    digest,
    compressedBytes: (await stat(archive)).size,
    unpackedBytes: layers.reduce((sum, layer) => sum + layer.unpackedBytes, 0),
    baseBytes: layers[0]?.unpackedBytes ?? 0,
  };
}

function print(rows: Row[]): void {
  const megabytes = (bytes?: number) => (bytes === undefined ? '' : `${(bytes / 1e6).toFixed(1)} MB`);
  console.table(
    rows.map((row) => ({
      image: row.image,
      platform: row.platform,
      compressed: megabytes(row.compressedBytes),
      unpacked: megabytes(row.unpackedBytes),
      'of it Node': megabytes(row.baseBytes),
      archive: row.archive === undefined ? '' : row.archive.slice(root.length + 1),
    })),
  );
}

async function main(): Promise<void> {
  const options = await readOptions(process.argv.slice(2));
  if (options.help) {
    console.log(usage);
    return;
  }
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  const byDocker = !options.archive && hasDocker();
  if (options.push && !byDocker) throw new DandelionError('bad-config', '--push needs docker with buildx.');
  const bases = new Map<string, Layer>();
  if (!byDocker) {
    for (const platform of options.platforms) {
      const architecture = platform.endsWith('arm64') ? 'arm64' : 'amd64';
      bases.set(platform, await makeBaseLayer(architecture, options.base));
    }
  }
  const rows: Row[] = [];
  for (const name of options.functions) {
    process.stderr.write(`${options.prefix}${name}:${options.tag}\n`);
    rows.push(
      byDocker
        ? await buildByDocker(name, options, version)
        : await buildArchive(name, options, bases, version),
    );
  }
  if (options.json) console.log(JSON.stringify(rows, null, 2));
  else print(rows);
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    const told = error instanceof DandelionError || (error instanceof TypeError && 'code' in error);
    process.stderr.write(`${told ? error.message : String((error as Error).stack)}\n`);
    process.exitCode = told ? 2 : 1;
  });
}
