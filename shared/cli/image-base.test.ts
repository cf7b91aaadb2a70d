import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { makeBaseLayer } from './image-base.ts';

const run = promisify(execFile);
const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
const onnxruntime = join(
  import.meta.dirname,
  `../../node_modules/onnxruntime-node/bin/napi-v6/linux/${process.arch}/libonnxruntime.so.1`,
);
if (process.platform !== 'linux')
  console.warn('SKIPPED: the base layer is made of the libraries of a Linux machine.');

it.skipIf(process.platform !== 'linux')('has every library that onnxruntime is linked with', async () => {
  const { stdout } = await run('ldd', [onnxruntime]);
  const wanted = [...stdout.matchAll(/=> (\/\S+) \(0x/g)].map(([, path]) => path?.slice(1) ?? '');
  expect(wanted.length).toBeGreaterThan(3);
  const { layer } = await makeBaseLayer(architecture);
  const tar = gunzipSync(layer.content).toString('latin1');
  expect(wanted.filter((path) => !tar.includes(path))).toEqual([]);
});
