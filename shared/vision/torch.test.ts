import { deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { readStateDict } from './torch.ts';

/** Pieces of pickle programs, as torch writes them. */
const text = (value: string) => {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([Buffer.from('X'), length, bytes]);
};
const whole = (value: number) => {
  const bytes = Buffer.alloc(5);
  bytes.write('J');
  bytes.writeInt32LE(value, 1);
  return bytes;
};
const global = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`);
const tuple = (...items: Buffer[]) => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]);
const call = (callable: Buffer, ...args: Buffer[]) =>
  Buffer.concat([callable, tuple(...args), Buffer.from('R')]);
const program = (body: Buffer) => Buffer.concat([Buffer.from([0x80, 2]), body, Buffer.from('.')]);
const dict = (entries: Record<string, Buffer>) => {
  const items = Object.entries(entries).flatMap(([name, value]) => [text(name), value]);
  return Buffer.concat([Buffer.from('}('), ...items, Buffer.from('u')]);
};
const list = (...items: Buffer[]) => Buffer.concat([Buffer.from(']('), ...items, Buffer.from('e')]);

const storage = (type: string, key: string, count: number) =>
  Buffer.concat([
    tuple(text('storage'), global('torch', type), text(key), text('cpu'), whole(count), Buffer.from('N')),
    Buffer.from('Q'),
  ]);
const tensor = (source: Buffer, offset: number, shape: number[], strides: number[]) =>
  call(
    global('torch._utils', '_rebuild_tensor_v2'),
    source,
    whole(offset),
    tuple(...shape.map(whole)),
    tuple(...strides.map(whole)),
    Buffer.from([0x89]),
    call(global('collections', 'OrderedDict')),
  );

const floats = (...values: number[]) => Buffer.from(Float32Array.from(values).buffer);

function legacyFile(body: Buffer, storages: Record<string, { count: number; bytes: Buffer }>): Buffer {
  const header = Buffer.from('\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.', 'latin1');
  const parts: Buffer[] = [header, program(whole(1001)), program(dict({})), program(body)];
  parts.push(program(list(...Object.keys(storages).map(text))));
  for (const { count, bytes } of Object.values(storages)) {
    const length = Buffer.alloc(8);
    length.writeBigInt64LE(BigInt(count));
    parts.push(length, bytes);
  }
  return Buffer.concat(parts);
}

/** A zip of deflated files with local headers, directory and end record. */
function zipFile(files: Record<string, Buffer>): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(files)) {
    const packed = deflateRawSync(bytes);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(8, 4);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(bytes.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), fields, Buffer.from(name), packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02'), Buffer.from([20, 0]), fields, tail, Buffer.from(name));
    locals.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(Object.keys(files).length, 4);
  end.writeUInt16LE(Object.keys(files).length, 6);
  end.writeUInt32LE(central.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, central, Buffer.from('PK\x05\x06'), end]);
}

const state = dict({
  plain: tensor(storage('FloatStorage', '0', 6), 0, [2, 3], [3, 1]),
  transposed: tensor(storage('FloatStorage', '0', 6), 0, [3, 2], [1, 3]),
  part: tensor(storage('FloatStorage', '0', 6), 4, [2], [1]),
  counter: tensor(storage('LongStorage', '1', 1), 0, [], []),
});
const values = floats(1, 2, 3, 4, 5, 6);

describe('readStateDict', () => {
  it('reads the format of torch up to 1.5, views and transposed tensors included', async () => {
    const file = legacyFile(state, {
      '0': { count: 6, bytes: values },
      '1': { count: 1, bytes: Buffer.alloc(8) },
    });
    const tensors = await readStateDict(file);
    expect([...tensors.keys()]).toEqual(['plain', 'transposed', 'part']);
    expect(tensors.get('plain')).toEqual({ shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) });
    expect(tensors.get('transposed')).toEqual({ shape: [3, 2], data: Float32Array.of(1, 4, 2, 5, 3, 6) });
    expect(tensors.get('part')).toEqual({ shape: [2], data: Float32Array.of(5, 6) });
  });

  it('reads the zipped format of torch 1.6 and later', async () => {
    const file = zipFile({
      'archive/data.pkl': program(state),
      'archive/data/0': values,
      'archive/data/1': Buffer.alloc(8),
      'archive/version': Buffer.from('3\n'),
    });
    const tensors = await readStateDict(file);
    expect(tensors.get('transposed')?.data).toEqual(Float32Array.of(1, 4, 2, 5, 3, 6));
  });

  it('refuses a pickle that wants to call something', async () => {
    const attack = legacyFile(call(global('os', 'system'), text('true')), {});
    await expect(readStateDict(attack)).rejects.toMatchObject({
      code: 'backbone-unavailable',
      message: expect.stringContaining('os.system is refused'),
    });
    const inherited = legacyFile(call(global('constructor', 'constructor'), text('1')), {});
    await expect(readStateDict(inherited)).rejects.toMatchObject({ code: 'backbone-unavailable' });
  });

  it('refuses tensors that reach beyond their storage', async () => {
    const body = dict({ huge: tensor(storage('FloatStorage', '0', 6), 0, [1_000_000_000], [0]) });
    const file = legacyFile(body, { '0': { count: 6, bytes: values } });
    await expect(readStateDict(file)).rejects.toThrow('tensor huge reaches beyond its storage');
  });

  it.each([0, 1, 40, 200, -1, -30])('names a file cut off at byte %i', async (length) => {
    const file = legacyFile(state, {
      '0': { count: 6, bytes: values },
      '1': { count: 1, bytes: Buffer.alloc(8) },
    });
    await expect(
      readStateDict(file.subarray(0, length < 0 ? file.length + length : length)),
    ).rejects.toMatchObject({
      code: 'backbone-unavailable',
    });
  });

  it('names a damaged zip', async () => {
    await expect(readStateDict(Buffer.from('PK\x03\x04 and no more'))).rejects.toMatchObject({
      code: 'bad-archive',
    });
  });
});
