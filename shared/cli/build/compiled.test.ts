import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { copyFile, cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const run = promisify(execFile);
/** As knative/Dockerfile has it. */
const IMAGE_USER = 65532;
const isRoot = process.getuid?.() === 0;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-compiled-'));
  await run('chmod', ['755', folder]);
  await cp(join(import.meta.dirname, '../../../dist/webapp'), join(folder, 'app'), {
    recursive: true,
    verbatimSymlinks: true,
  });
  // The user of the image may not look into the folder that this Node lies in.
  await copyFile(process.execPath, join(folder, 'node'), constants.COPYFILE_FICLONE);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('starts from compiled code where an image has the bundle, as the user of the image', async () => {
  if (!isRoot) process.stderr.write('only root can become the user of the image: run as oneself instead\n');
  const { stdout, stderr } = await run(
    join(folder, 'node'),
    [join(folder, 'app/index.mjs'), '--compile-only'],
    {
      ...(isRoot && { uid: IMAGE_USER, gid: IMAGE_USER }),
      env: { PATH: process.env.PATH, NODE_DEBUG_NATIVE: 'COMPILE_CACHE' },
    },
  );
  expect(stdout + stderr).toMatch(/app\/function\.mjs was accepted/);
});
