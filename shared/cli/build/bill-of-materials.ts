import { DandelionError } from '../../errors.ts';
import type { Lock } from './lock.ts';

/** One component of a CycloneDX document, as far as it is used here. */
export interface Component {
  type: 'library' | 'application' | 'container' | 'file' | 'platform';
  'bom-ref': string;
  name: string;
  version?: string;
  purl?: string;
  licenses?: { expression: string }[];
  hashes?: { alg: 'SHA-256' | 'SHA-512'; content: string }[];
}

export interface BillOfMaterials {
  $schema: string;
  bomFormat: 'CycloneDX';
  specVersion: '1.6';
  version: 1;
  metadata: { component: Component };
  components: Component[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

/**
 * Lists what a bundle holds: a scanner sees one file where esbuild joined a hundred packages.
 *
 * Source: CycloneDX 1.6; Package URL specification, type npm.
 *
 * @param paths of packages in the lock file
 * @throws DandelionError `bad-config` for a package that the lock file does not name
 */
export function billOfMaterials(
  name: string,
  version: string,
  lock: Lock,
  paths: Iterable<string>,
): BillOfMaterials {
  const root: Component = { type: 'application', 'bom-ref': name, name, version };
  const components = [...new Set(paths)].sort().map((path) => toComponent(path, lock));
  return withComponents(
    {
      $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
      ...{ bomFormat: 'CycloneDX', specVersion: '1.6', version: 1 },
      ...{ metadata: { component: root }, components: [], dependencies: [] },
    },
    components,
  );
}

/** The same document with more in it. */
export function withComponents(bill: BillOfMaterials, more: readonly Component[]): BillOfMaterials {
  const byRef = new Map([...bill.components, ...more].map((component) => [component['bom-ref'], component]));
  return {
    ...bill,
    components: [...byRef.values()],
    dependencies: [{ ref: bill.metadata.component['bom-ref'], dependsOn: [...byRef.keys()] }],
  };
}

/** The lock file's name of the package that a file belongs to; `undefined` for a file of the project's own. */
export function packagePathOf(file: string): string | undefined {
  const segments = file.replaceAll('\\', '/').split('/');
  const start = segments.indexOf('node_modules');
  if (start === -1) return undefined;
  const last = segments.lastIndexOf('node_modules') + 1;
  const isScoped = segments[last]?.startsWith('@') ?? false;
  return segments.slice(start, last + (isScoped ? 2 : 1)).join('/');
}

function toComponent(path: string, lock: Lock): Component {
  const entry = lock.packages[path];
  if (entry?.version === undefined) {
    throw new DandelionError(
      'bad-config',
      `package-lock.json does not name ${path}, which is bundled: run npm ci, then build again.`,
    );
  }
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  const purl = `pkg:npm/${name.replace('@', '%40')}@${entry.version}`;
  const digest = entry.integrity?.startsWith('sha512-')
    ? Buffer.from(entry.integrity.slice('sha512-'.length), 'base64').toString('hex')
    : undefined;
  return {
    ...{ type: 'library', 'bom-ref': purl, name, version: entry.version, purl },
    ...(entry.license === undefined ? {} : { licenses: [{ expression: entry.license }] }),
    ...(digest === undefined ? {} : { hashes: [{ alg: 'SHA-512', content: digest }] }),
  };
}
