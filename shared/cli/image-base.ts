import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { DandelionError } from '../errors.ts';
import type { Component } from './build/bill-of-materials.ts';
import { type Layer, makeLayer } from './image-archive.ts';

const run = promisify(execFile);

/** Node does not list these: name resolution loads the first three by name, onnxruntime is linked with the last. */
const furtherLibraries = ['libnss_files.so.2', 'libnss_dns.so.2', 'libresolv.so.2', 'librt.so.1'];
const certificates = '/etc/ssl/certs/ca-certificates.crt';

/** What lies under every function, and what it is made of. */
export interface Base {
  layer: Layer;
  components: Component[];
}

/**
 * Makes the layer under every function where no registry is at hand: a root file system that is given, or this
 * machine's own Node with the C and C++ libraries it needs (glibc, for the machine's own architecture).
 *
 * @throws DandelionError `bad-config` when there is no such folder, or when this machine's libraries are not the ones wanted
 */
export async function makeBaseLayer(architecture: 'amd64' | 'arm64', folder?: string): Promise<Base> {
  if (folder !== undefined) {
    const node = await stat(join(folder, 'bin/node')).catch(() => undefined);
    if (node === undefined) {
      throw new DandelionError('bad-config', `--base ${folder} is no root file system with bin/node in it.`);
    }
    return describe(folder);
  }
  const own = { x64: 'amd64', arm64: 'arm64' }[process.arch as string];
  if (process.platform !== 'linux' || own !== architecture) {
    throw new DandelionError(
      'bad-config',
      `Without docker, an image for linux/${architecture} needs --base FOLDER: a root file system with Node for it.`,
    );
  }
  const root = await mkdtemp(join(tmpdir(), 'dandelion-base-'));
  try {
    await layRootFileSystem(root);
    return await describe(root, process.version.slice(1));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Lists every file by its digest: copied libraries have no package database beside them. */
async function describe(root: string, nodeVersion?: string): Promise<Base> {
  const entries = await readdir(root, { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const components = await Promise.all(
    files.sort().map(async (file): Promise<Component> => {
      const name = `/${relative(root, file)}`;
      const content = createHash('sha256')
        .update(await readFile(file))
        .digest('hex');
      return { type: 'file', 'bom-ref': `file:${name}`, name, hashes: [{ alg: 'SHA-256', content }] };
    }),
  );
  if (nodeVersion !== undefined) {
    const purl = `pkg:generic/node@${nodeVersion}`;
    components.unshift({ type: 'platform', 'bom-ref': purl, name: 'node', version: nodeVersion, purl });
  }
  return { layer: await makeLayer(root, '/'), components };
}

async function layRootFileSystem(root: string): Promise<void> {
  const node = await realpath(process.execPath);
  for (const path of ['bin', 'etc', 'tmp', 'app', 'usr/bin'])
    await mkdir(join(root, path), { recursive: true });
  await chmod(join(root, 'tmp'), 0o1777);
  await copyFile(node, join(root, 'usr/bin/node'));
  await symlink('/usr/bin/node', join(root, 'bin/node'));
  for (const library of await librariesOf(node)) await copyInto(root, library);
  const known = (await run('/sbin/ldconfig', ['-p'])).stdout;
  for (const name of furtherLibraries) {
    const path = new RegExp(`^\\s*${name.replaceAll('.', '\\.')} .*=> (\\S+)$`, 'm').exec(known)?.[1];
    if (path !== undefined) await copyInto(root, path);
  }
  await copyInto(root, certificates).catch(() => undefined);
  await writeFile(join(root, 'etc/nsswitch.conf'), 'hosts: files dns\n');
  await writeFile(
    join(root, 'etc/passwd'),
    'root:x:0:0:root:/:/bin/false\nnonroot:x:65532:65532:nonroot:/tmp:/bin/false\n',
  );
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nnonroot:x:65532:\n');
}

async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await run('ldd', [program]);
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].flatMap(([, path]) => path ?? []);
}

async function copyInto(root: string, path: string): Promise<void> {
  const target = join(root, path);
  await mkdir(dirname(target), { recursive: true });
  await copyFile(await realpath(path), target);
}
