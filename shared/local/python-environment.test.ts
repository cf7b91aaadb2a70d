import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { preparePython } from './python-environment.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-python-'));
  vi.stubEnv('XDG_CACHE_HOME', join(folder, 'cache'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

async function prepare(pins: string) {
  const requirements = join(folder, 'pins.txt');
  await writeFile(requirements, pins);
  return preparePython({ requirements, atLeast: [3, 11], purpose: 'MLflow' });
}

/** A Python that says it is of this version. */
async function pretendPython(version: string) {
  const bin = join(folder, 'bin');
  await mkdir(bin);
  await writeFile(join(bin, 'python3'), `#!/bin/sh\necho ${version}\n`);
  await chmod(join(bin, 'python3'), 0o755);
  vi.stubEnv('PATH', bin);
}

const isUnix = process.platform !== 'win32';

test.runIf(isUnix)('a Python that is too old is named, and what is needed', async () => {
  await pretendPython('3.9');
  await expect(prepare('six==1.17.0\n')).rejects.toMatchObject({
    code: 'bad-config',
    message: 'MLflow needs Python 3.11 or newer, and python3 is 3.9: install it from https://www.python.org.',
  });
});

test.runIf(isUnix)('so is a machine without Python', async () => {
  vi.stubEnv('PATH', folder);
  await expect(prepare('six==1.17.0\n')).rejects.toThrow(/and no Python is on the PATH: install it/);
});

test.runIf(isUnix)('packages that cannot be had leave nothing that looks ready', async (context) => {
  for (const tool of ['PIP', 'UV']) {
    vi.stubEnv(`${tool}_INDEX_URL`, 'http://127.0.0.1:59/simple');
    vi.stubEnv(`${tool}_FIND_LINKS`, '');
  }
  vi.stubEnv('PIP_RETRIES', '0');
  const failure = await prepare('no-such-package-of-dandelion==1.0\n').catch((error: Error) => error.message);
  if (String(failure).includes('needs Python')) {
    console.warn(`SKIPPED: packages that cannot be had: ${failure}`);
    return context.skip();
  }
  expect(failure).toMatch(
    /MLflow needs the Python packages of .*pins\.txt, which could not be installed: .+/,
  );
  expect(await readdir(join(folder, 'cache/dandelion'))).toEqual([]);
});
