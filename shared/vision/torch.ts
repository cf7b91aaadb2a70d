import { DandelionError } from '../errors.ts';
import { type PickleCursor, type PickleRules, type PickleValue, readPickle } from './pickle.ts';
import { isZip, readZip } from './zip.ts';

/** A tensor of 32-bit floats, row-major. */
export interface FloatTensor {
  shape: number[];
  data: Float32Array;
}

/** Parameters of a network by torch's names (`_conv_stem.weight`). */
export type StateDict = Map<string, FloatTensor>;

/** A run of numbers in the file that tensors are views of. */
interface Storage {
  kind: 'storage';
  type: string;
  key: string;
}

/** A view of a storage: torch's `_rebuild_tensor_v2`. Offset and strides count numbers, not bytes. */
interface TensorView {
  kind: 'view';
  storage: Storage;
  offset: number;
  shape: number[];
  strides: number[];
}

const bytesPerNumber: Readonly<Record<string, number>> = {
  'torch.FloatStorage': 4,
  'torch.DoubleStorage': 8,
  'torch.HalfStorage': 2,
  'torch.LongStorage': 8,
  'torch.IntStorage': 4,
  'torch.ShortStorage': 2,
  'torch.ByteStorage': 1,
  'torch.CharStorage': 1,
  'torch.BoolStorage': 1,
};

const MAX_UNPACKED_BYTES = 1_000_000_000;

function unreadable(what: string): DandelionError {
  return new DandelionError('backbone-unavailable', `The torch weights cannot be read: ${what}.`);
}

function isStorage(value: PickleValue | undefined): value is Storage {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'storage';
}

function isView(value: PickleValue | undefined): value is TensorView {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'view';
}

function wholeNumbers(value: PickleValue | undefined): number[] {
  const numbers = Array.isArray(value) ? value : [];
  if (!numbers.every((item): item is number => Number.isSafeInteger(item) && Number(item) >= 0)) {
    throw unreadable('a shape is not a list of whole numbers');
  }
  return numbers;
}

function rebuildTensor(args: PickleValue[]): TensorView {
  const [storage, offset, shape, strides] = args;
  if (!isStorage(storage)) throw unreadable('a tensor has no storage');
  const [start = 0] = wholeNumbers([offset ?? 0]);
  return {
    kind: 'view',
    storage,
    offset: start,
    shape: wholeNumbers(shape),
    strides: wholeNumbers(strides),
  };
}

const rules: PickleRules = {
  callables: {
    'collections.OrderedDict': () => new Map(),
    'torch._utils._rebuild_tensor_v2': rebuildTensor,
    'torch._utils._rebuild_parameter': (args) => args[0] ?? null,
  },
  persistent(id) {
    const [tag, type, key] = Array.isArray(id) ? id : [];
    const name = typeof type === 'object' && type !== null && 'global' in type ? String(type.global) : '';
    if (tag !== 'storage' || bytesPerNumber[name] === undefined) throw unreadable(`storage type "${name}"`);
    return { kind: 'storage', type: name, key: String(key) } satisfies Storage;
  },
};

/** The float tensors of a pickled dict; integers (counters of batches seen) and other members fall away. */
function viewsOf(value: PickleValue): Map<string, TensorView> {
  if (!(value instanceof Map)) throw unreadable('it holds no dict of tensors');
  const views = new Map<string, TensorView>();
  for (const [name, view] of value) if (isView(view)) views.set(String(name), view);
  return views;
}

/**
 * Files of torch up to 1.5: three pickles (magic number, protocol, machine), the dict, the list of storage
 * keys, then each storage as a 64-bit count and its numbers, all little-endian.
 */
function readLegacy(bytes: Buffer): { views: Map<string, TensorView>; storages: Map<string, Buffer> } {
  const cursor: PickleCursor = { bytes, offset: 0 };
  for (let header = 0; header < 3; header += 1) readPickle(cursor, rules);
  const views = viewsOf(readPickle(cursor, rules));
  const keys = readPickle(cursor, rules);
  if (!Array.isArray(keys)) throw unreadable('the list of storages is missing');

  const typeOfKey = new Map([...views.values()].map(({ storage }) => [storage.key, storage.type]));
  const storages = new Map<string, Buffer>();
  for (const item of keys) {
    const key = String(item);
    if (cursor.offset + 8 > bytes.length) throw unreadable('it ends too early');
    const count = Number(bytes.readBigInt64LE(cursor.offset));
    const width = bytesPerNumber[typeOfKey.get(key) ?? ''];
    if (width === undefined) throw unreadable(`nothing says of what type storage ${key} is`);
    const start = cursor.offset + 8;
    cursor.offset = start + count * width;
    if (count < 0 || cursor.offset > bytes.length) throw unreadable('it ends too early');
    storages.set(key, bytes.subarray(start, cursor.offset));
  }
  return { views, storages };
}

/** Files of torch since 1.6: a zip with `NAME/data.pkl` and one file a storage under `NAME/data/`. */
async function readZipped(bytes: Uint8Array): Promise<ReturnType<typeof readLegacy>> {
  const files = await readZip(bytes, (name) => /\/(data\.pkl|data\/\d+)$/.test(name), MAX_UNPACKED_BYTES);
  const storages = new Map<string, Buffer>();
  let views: Map<string, TensorView> | undefined;
  for (const [name, contents] of files) {
    if (name.endsWith('/data.pkl')) views = viewsOf(readPickle({ bytes: contents, offset: 0 }, rules));
    else storages.set(name.slice(name.lastIndexOf('/') + 1), contents);
  }
  if (views === undefined) throw unreadable('the archive has no data.pkl');
  return { views, storages };
}

/** Copies a view into row-major order; strides may be any (transposed kernels are common). */
function gather(name: string, view: TensorView, storage: Buffer): FloatTensor {
  const { shape, strides, offset } = view;
  const size = shape.reduce((product, length) => product * length, 1);
  const last = shape.reduce((index, length, axis) => index + (length - 1) * (strides[axis] ?? 0), offset);
  const reach = Math.max(size, size > 0 ? last + 1 : 0);
  if (strides.length !== shape.length || reach * 4 > storage.length) {
    throw unreadable(`tensor ${name} reaches beyond its storage`);
  }
  const data = new Float32Array(size);
  const index = shape.map(() => 0);
  let from = offset;
  for (let i = 0; i < size; i += 1) {
    data[i] = storage.readFloatLE(from * 4);
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      const stride = strides[axis] ?? 0;
      const next = (index[axis] ?? 0) + 1;
      if (next < (shape[axis] ?? 0)) {
        index[axis] = next;
        from += stride;
        break;
      }
      from -= stride * (next - 1);
      index[axis] = 0;
    }
  }
  return { shape, data };
}

/**
 * Reads the 32-bit float tensors of a torch state dict (`.pth`) without Python, in both of torch's formats.
 * The pickle inside is read as data: nothing it names is called. Format: torch/serialization.py.
 *
 * @throws DandelionError `backbone-unavailable` (not a state dict, damaged, or it wants to call something),
 *   `bad-archive` (damaged zip)
 */
export async function readStateDict(bytes: Uint8Array): Promise<StateDict> {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { views, storages } = isZip(file) ? await readZipped(file) : readLegacy(file);
  const tensors: StateDict = new Map();
  for (const [name, view] of views) {
    if (view.storage.type !== 'torch.FloatStorage') continue;
    const storage = storages.get(view.storage.key);
    if (storage === undefined) throw unreadable(`the storage of tensor ${name} is missing`);
    tensors.set(name, gather(name, view, storage));
  }
  if (tensors.size === 0) throw unreadable('it holds no tensor of 32-bit floats');
  return tensors;
}
