import { cp, link, mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import type { Platform } from './platform.ts';

interface Rule {
  skip?: (path: string, platform: Platform) => boolean;
  without?: string[];
}

/** Packages with compiled parts cannot be bundled; they are laid beside the bundle that imports them. */
export const nativePackages: Record<string, Rule> = {
  '@julusian/jpeg-turbo': {
    // Only the platform's library, and nothing to compile it with.
    skip: (path, { os, cpu }) =>
      path.startsWith('src/') ||
      (path.startsWith('prebuilds/') && !path.startsWith(`prebuilds/jpeg-turbo-${os}-${cpu}`)),
    without: ['cmake-js', 'node-addon-api'],
  },
  'pkg-prebuilds': { skip: (path) => path.startsWith('bin/'), without: ['yargs'] },
  sharp: { skip: (path) => path.startsWith('src/') || path.startsWith('install/') },
  'onnxruntime-node': {
    // Only the platform's library (45 MB of 288), and neither the installer nor what it needs.
    skip: (path, { os, cpu }) =>
      (path.startsWith('bin/') && !path.startsWith(`bin/napi-v6/${os}/${cpu}/`)) ||
      path.startsWith('script/') ||
      path.startsWith('lib/') ||
      path.startsWith('node_modules/'),
    without: ['adm-zip', 'global-agent'],
  },
};

interface PackageManifest {
  name: string;
  version: string;
  os?: string | string[];
  cpu?: string | string[];
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/**
 * Copies native packages into a function's folder, with what they need on a platform.
 *
 * @param imported names of the packages that a bundle imports
 * @param sources folders named `node_modules`, the first that has a package counts
 * @returns their versions by name
 */
export async function layNativePackages(
  imported: Iterable<string>,
  { folder, sources, platform }: { folder: string; sources: string[]; platform: Platform },
): Promise<Record<string, string>> {
  const versions: Record<string, string> = {};
  const queue = [...new Set(imported)];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (name in versions) continue;
    const found = await findPackage(name, sources);
    // An optional package of another platform is not installed, or is the machine's own and not the image's.
    if (found === undefined || !fits(found.manifest, platform)) continue;
    const { source, manifest } = found;
    versions[name] = manifest.version;
    const rule = nativePackages[name];
    await layTree(
      source,
      join(folder, 'node_modules', name),
      (path) => rule?.skip?.(path, platform) ?? false,
    );
    const needed = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies });
    queue.push(...needed.filter((dependency) => !rule?.without?.includes(dependency)));
  }
  return versions;
}

async function findPackage(name: string, sources: string[]) {
  for (const folder of sources) {
    const source = join(folder, name);
    const manifest = await readManifest(source).catch(() => undefined);
    if (manifest !== undefined) return { source, manifest };
  }
  return undefined;
}

function fits({ os, cpu }: PackageManifest, platform: Platform): boolean {
  return (os?.includes(platform.os) ?? true) && (cpu?.includes(platform.cpu) ?? true);
}

/** The `package.json` of a folder. */
export async function readManifest(folder: string): Promise<PackageManifest> {
  return JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as PackageManifest;
}

async function layTree(source: string, target: string, skip: (path: string) => boolean): Promise<void> {
  const entries = await readdir(source, { withFileTypes: true, recursive: true });
  for (const entry of entries) {
    const from = join(entry.parentPath, entry.name);
    const path = relative(source, from);
    if (!entry.isFile() || skip(path.replaceAll('\\', '/'))) continue;
    await mkdir(dirname(join(target, path)), { recursive: true });
    await layFile(from, join(target, path));
  }
}

/** A hard link costs no disk and no time; across file systems it is a copy. */
export async function layFile(from: string, to: string): Promise<void> {
  await link(from, to).catch(() => cp(from, to));
}
