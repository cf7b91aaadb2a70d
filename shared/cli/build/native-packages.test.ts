import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { layNativePackages } from './native-packages.ts';
import { bundlesOf, containerPlatform, ownPlatform } from './platform.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'native-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function installed(place: string, name: string, manifest: object, files: string[] = ['index.js']) {
  const target = join(folder, place, name);
  await mkdir(target, { recursive: true });
  await writeFile(join(target, 'package.json'), JSON.stringify({ name, version: '1.0.0', ...manifest }));
  for (const file of files) {
    await mkdir(join(target, file, '..'), { recursive: true });
    await writeFile(join(target, file), file);
  }
}

it('lays the libraries of the wanted platform, not those of the machine that builds', async () => {
  const optionalDependencies = { '@img/sharp-linux-x64': '1', '@img/sharp-linux-arm64': '1' };
  await installed('own', 'sharp', { optionalDependencies });
  await installed('own', '@img/sharp-linux-x64', { os: ['linux'], cpu: ['x64'] });
  await installed('other', '@img/sharp-linux-arm64', { os: ['linux'], cpu: ['arm64'] });
  const binaries = ['linux/x64', 'linux/arm64', 'darwin/arm64'].map((each) => `bin/napi-v6/${each}/library`);
  await installed('own', 'onnxruntime-node', { dependencies: { 'adm-zip': '1' } }, binaries);
  await installed('own', 'adm-zip', {});

  const versions = await layNativePackages(['sharp', 'onnxruntime-node'], {
    folder: join(folder, 'function'),
    sources: [join(folder, 'other'), join(folder, 'own')],
    platform: containerPlatform('linux/arm64'),
  });

  expect(Object.keys(versions).sort()).toEqual(['@img/sharp-linux-arm64', 'onnxruntime-node', 'sharp']);
  const laid = await readdir(join(folder, 'function/node_modules/onnxruntime-node'), { recursive: true });
  expect(laid.filter((path) => path.endsWith('library'))).toEqual([
    join('bin', 'napi-v6', 'linux', 'arm64', 'library'),
  ]);
});

it('keeps the bundles of other platforms apart', () => {
  expect(bundlesOf('dist', ownPlatform)).toBe('dist');
  expect(bundlesOf('dist', { os: 'linux', cpu: 'riscv64' })).toBe(join('dist', 'platforms', 'linux-riscv64'));
  expect(() => containerPlatform('linux/s390x')).toThrow('linux/amd64 and linux/arm64');
});
