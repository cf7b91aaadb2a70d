/** `npm run images`: a container image of every function and of the gateway, by docker where it runs, else as OCI archives. */
import { execFileSync, spawnSync } from 'node:child_process';
import { access, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DandelionError } from '../errors.ts';
import { type BillOfMaterials, type Component, withComponents } from './build/bill-of-materials.ts';
import { bundlesOf, containerPlatform, isOwn } from './build/platform.ts';
import { type ImageConfig, type ImageOptions, makeLayer, writeArchive } from './image-archive.ts';
import { type Base, makeBaseLayer } from './image-base.ts';

const root = join(import.meta.dirname, '../..');
const imagesFolder = join(root, 'dist/images');
const usage = `npm run images -- [function ...]   (and "gateway", for docker compose; default: all)
  --prefix NAME     before the function's name (default dev.local/dandelion-)
  --tag TAG         default dev; no "latest", which Kubernetes would pull again
  --platform LIST   linux/amd64, linux/arm64 (default: this machine's)
  --base BASE       docker: name of the base image, with its digest; else a folder with a root file system
  --archive         an OCI archive in dist/images/ although docker runs
  --push            docker: to the registry, with provenance and SBOM
  --json            the table as JSON`;

interface Row {
  function: string;
  image: string;
  platform: string;
  archive?: string;
  digest?: string;
  /** CycloneDX documents of what is inside, one a platform. */
  billsOfMaterials: string[];
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
      `There is no image ${unknown.join(', ')}; there are: ${built.join(', ')}.`,
    );
  }
  const platforms = values.platform.split(',');
  for (const platform of platforms) containerPlatform(platform);
  return { ...values, platforms, functions: positionals.length > 0 ? positionals : built };
}

/** Broker and gateway where there is no Knative; no function, but an image as theirs. */
const gateway = 'gateway';

async function imageNames(): Promise<string[]> {
  const entries = await readdir(join(root, 'functions'), { withFileTypes: true });
  const functions = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return [...functions.sort(), gateway];
}

/** `dist/` holds the native packages of this machine; bundles for other platforms are laid when they are wanted. */
async function contextOf(name: string, platform: string): Promise<string> {
  const bundles = bundlesOf(join(root, 'dist'), containerPlatform(platform));
  const folder = join(bundles, name === gateway ? join('local', name) : name);
  const isBuilt = await access(join(folder, 'index.mjs')).then(
    () => true,
    () => false,
  );
  if (isBuilt) return folder;
  throw new DandelionError('bad-config', `${folder} is not there: run npm run build.`);
}

/** Bundles for this machine are there: npm run images builds them first. */
function buildFor(platforms: readonly string[]): void {
  for (const platform of platforms.filter((each) => !isOwn(containerPlatform(each)))) {
    execFileSync(process.execPath, [join(root, 'build.ts'), '--platform', platform], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
  }
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
    'org.opencontainers.image.description':
      name === gateway ? 'Gateway and broker of Dandelion' : `The function ${name} of Dandelion`,
    'org.opencontainers.image.licenses': 'Apache-2.0',
    'org.opencontainers.image.version': version,
    ...(revision.status === 0 ? { 'org.opencontainers.image.revision': revision.stdout.trim() } : {}),
  };
}

/** The base image that the Dockerfile names. */
export function baseOf(dockerfile: string): string {
  return /^ARG BASE=(\S+)$/m.exec(dockerfile)?.[1] ?? '';
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

/** One build a platform, since each has bundles of its own; a push joins them under one name. */
async function buildByDocker(name: string, options: Options, version: string): Promise<Row> {
  const image = `${options.prefix}${name}:${options.tag}`;
  const labels = Object.entries(annotationsOf(name, version)).map(
    ([key, value]) => `--label=${key}=${value}`,
  );
  const built: string[] = [];
  for (const platform of options.platforms) {
    const single = options.platforms.length === 1;
    const tag = single ? image : `${image}-${architectureOf(platform)}`;
    const words = [
      ...['buildx', 'build', '--file', join(root, 'knative/Dockerfile'), '--tag', tag],
      ...['--platform', platform, ...labels],
      ...(options.base === undefined ? [] : ['--build-arg', `BASE=${options.base}`]),
      ...(options.push ? ['--push', '--provenance=mode=max', '--sbom=true'] : ['--load']),
      await contextOf(name, platform),
    ];
    execFileSync('docker', words, { stdio: ['ignore', 'inherit', 'inherit'] });
    built.push(tag);
  }
  if (options.push && built.length > 1) {
    const words = ['buildx', 'imagetools', 'create', '--tag', image, ...built];
    execFileSync('docker', words, { stdio: ['ignore', 'inherit', 'inherit'] });
  }
  const base = options.base ?? baseOf(await readFile(join(root, 'knative/Dockerfile'), 'utf8'));
  const component: Component = { type: 'container', 'bom-ref': base, name: base };
  const billsOfMaterials = await writeBills(name, options, () => [component]);
  const row: Row = { function: name, image, platform: options.platform, billsOfMaterials };
  if (options.push) return row;
  const size = execFileSync('docker', ['image', 'inspect', '--format', '{{.Size}}', built[0] ?? image], {
    encoding: 'utf8',
  });
  return { ...row, unpackedBytes: Number(size) };
}

async function buildArchive(
  name: string,
  options: Options,
  bases: Map<string, Base>,
  version: string,
): Promise<Row> {
  const image = `${options.prefix}${name}:${options.tag}`;
  const config = parseDockerfile(await readFile(join(root, 'knative/Dockerfile'), 'utf8'));
  const images: ImageOptions[] = [];
  for (const platform of options.platforms) {
    const base = bases.get(platform);
    if (base === undefined) throw new Error(`no base for ${platform}`);
    const own = await makeLayer(await contextOf(name, platform), '/app', (path) => path.endsWith('.map'));
    images.push({ name: image, architecture: architectureOf(platform), config, layers: [base.layer, own] });
  }
  await mkdir(imagesFolder, { recursive: true });
  const archive = join(imagesFolder, `${name}.tar`);
  const digest = await writeArchive(archive, images, annotationsOf(name, version));
  const layers = images[0]?.layers ?? [];
  return {
    function: name,
    image,
    platform: options.platform,
    archive,
    digest,
    billsOfMaterials: await writeBills(name, options, (platform) => bases.get(platform)?.components ?? []),
    compressedBytes: (await stat(archive)).size,
    unpackedBytes: layers.reduce((sum, layer) => sum + layer.unpackedBytes, 0),
    baseBytes: layers[0]?.unpackedBytes ?? 0,
  };
}

/** What the build says of the bundle, and what lies under it. */
async function writeBills(
  name: string,
  { platforms }: Options,
  componentsOf: (platform: string) => Component[],
): Promise<string[]> {
  await mkdir(imagesFolder, { recursive: true });
  return Promise.all(
    platforms.map(async (platform) => {
      const source = join(await contextOf(name, platform), 'sbom.cdx.json');
      const bill = JSON.parse(await readFile(source, 'utf8')) as BillOfMaterials;
      const file = join(imagesFolder, `${name}.${architectureOf(platform)}.cdx.json`);
      await writeFile(file, `${JSON.stringify(withComponents(bill, componentsOf(platform)), null, 2)}\n`);
      return file;
    }),
  );
}

function architectureOf(platform: string): 'amd64' | 'arm64' {
  return platform.endsWith('arm64') ? 'arm64' : 'amd64';
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
      'bill of materials': row.billsOfMaterials.map((file) => file.slice(root.length + 1)).join(' '),
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
  if (!byDocker && options.base !== undefined && options.platforms.length > 1) {
    throw new DandelionError('bad-config', '--base FOLDER is of one platform: name one --platform with it.');
  }
  const bases = new Map<string, Base>();
  if (!byDocker) {
    for (const platform of options.platforms) {
      bases.set(platform, await makeBaseLayer(architectureOf(platform), options.base));
    }
  }
  buildFor(options.platforms);
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
