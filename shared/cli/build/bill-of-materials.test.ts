import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type BillOfMaterials, billOfMaterials, packagePathOf, withComponents } from './bill-of-materials.ts';
import { readLock } from './lock.ts';

const root = join(import.meta.dirname, '../../..');
const lock = await readLock(root);

async function billOf(folder: string): Promise<BillOfMaterials> {
  return JSON.parse(await readFile(join(root, 'dist', folder, 'sbom.cdx.json'), 'utf8'));
}

describe('the path of a package', () => {
  it.each([
    ['node_modules/fastify/lib/reply.js', 'node_modules/fastify'],
    ['../../node_modules/@img/colour/index.js', 'node_modules/@img/colour'],
    ['node_modules/a/node_modules/@b/c/d.js', 'node_modules/a/node_modules/@b/c'],
    ['node_modules\\pino\\pino.js', 'node_modules/pino'],
    ['shared/errors.ts', undefined],
  ])('of %s is %s', (file, path) => {
    expect(packagePathOf(file)).toBe(path);
  });
});

describe('a bill of materials', () => {
  it('names each package once, by version, licence and the digest of the lock file', () => {
    const bill = billOfMaterials('dandelion-x', '1.0.0', lock, [
      'node_modules/@img/colour',
      'node_modules/sharp',
      'node_modules/sharp',
    ]);
    expect(bill.components.map(({ name }) => name)).toEqual(['@img/colour', 'sharp']);
    const { version, integrity } = lock.packages['node_modules/sharp'] ?? {};
    expect(bill.components[1]).toMatchObject({
      purl: `pkg:npm/sharp@${version}`,
      licenses: [{ expression: 'Apache-2.0' }],
    });
    const [hash] = bill.components[1]?.hashes ?? [];
    expect(`sha512-${Buffer.from(hash?.content ?? '', 'hex').toString('base64')}`).toBe(integrity);
    expect(bill.components[0]?.purl).toMatch(/^pkg:npm\/%40img\/colour@/);
    expect(bill.dependencies[0]?.dependsOn).toHaveLength(2);
  });

  it('says what to do when something is bundled that the lock file does not name', () => {
    expect(() => billOfMaterials('x', '1', lock, ['node_modules/left-pad'])).toThrow('npm ci');
  });

  it('keeps what it has when a base is added', () => {
    const bill = billOfMaterials('x', '1', lock, ['node_modules/sharp']);
    const component = { type: 'container' as const, 'bom-ref': 'base', name: 'base' };
    expect(withComponents(bill, [component]).components.map(({ name }) => name)).toEqual(['sharp', 'base']);
  });

  it('of a built function lists what its bundle holds, and nothing else', async () => {
    const names = async (folder: string) => (await billOf(folder)).components.map(({ name }) => name);
    expect(await names('predict')).toEqual(
      expect.arrayContaining(['onnxruntime-node', 'sharp', 'fastify', 'cloudevents']),
    );
    expect(await names('webapp')).not.toContain('onnxruntime-node');
    for (const folder of ['predict', 'deploy', 'local/gateway']) {
      expect(await names(folder)).not.toEqual(expect.arrayContaining(['vitest']));
      expect(await names(folder)).not.toEqual(expect.arrayContaining(['esbuild']));
    }
    expect(await names('deploy')).toContain('@kubernetes/client-node');
    expect(await names('predict')).not.toContain('@kubernetes/client-node');
  });
});
