import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bundlesOf, installForPlatform } from './platform.ts';

const platform = { os: 'linux', cpu: 'riscv64' };
const lock = { lockfileVersion: 3 as const, packages: {} };
let dist: string;
let stale: string;

beforeEach(async () => {
  dist = await mkdtemp(join(tmpdir(), 'dandelion-platform-'));
  const modules = join(bundlesOf(dist, platform), 'packages/node_modules');
  stale = join(modules, 'stale');
  await mkdir(modules, { recursive: true });
  await writeFile(stale, '');
});
afterEach(() => rm(dist, { recursive: true, force: true }));

it('installs again when the lock file names other packages than those that are there', async () => {
  const earlier = {
    name: 'packages',
    version: '0.0.0',
    dependencies: { '@img/sharp-linux-riscv64': '0.1.0' },
  };
  await writeFile(join(stale, '../../done'), JSON.stringify(earlier));
  const modules = await installForPlatform(lock, platform, dist);
  expect(existsSync(stale)).toBe(false);
  expect(modules).toBe(join(stale, '..'));
  await mkdir(modules, { recursive: true });
  await writeFile(stale, '');
  await installForPlatform(lock, platform, dist);
  expect(existsSync(stale)).toBe(true);
});
