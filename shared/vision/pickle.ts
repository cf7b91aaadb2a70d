import { DandelionError } from '../errors.ts';

/** What a pickle may hold here: plain data. A dict is a Map, tuples and lists are arrays. */
export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | PickleGlobal
  | object;

/** The name of a Python object (`module.name`). It is only ever compared with an allow list. */
export interface PickleGlobal {
  readonly global: string;
}

/** What the reader of a pickle allows. Whatever is not in `callables` is refused. */
export interface PickleRules {
  /** Stand-ins for the few Python callables the format needs, by `module.name`. */
  callables: Readonly<Record<string, (args: PickleValue[]) => PickleValue>>;
  /** Turns a persistent id (how torch names a storage) into a value. */
  persistent(id: PickleValue): PickleValue;
}

const opcode = {
  mark: 0x28,
  emptyTuple: 0x29,
  stop: 0x2e,
  binFloat: 0x47,
  binInt: 0x4a,
  binInt1: 0x4b,
  binInt2: 0x4d,
  none: 0x4e,
  binPersistentId: 0x51,
  reduce: 0x52,
  binUnicode: 0x58,
  emptyList: 0x5d,
  append: 0x61,
  build: 0x62,
  global: 0x63,
  appends: 0x65,
  binGet: 0x68,
  longBinGet: 0x6a,
  binPut: 0x71,
  longBinPut: 0x72,
  setItem: 0x73,
  tuple: 0x74,
  setItems: 0x75,
  emptyDict: 0x7d,
  protocol: 0x80,
  tuple1: 0x85,
  tuple2: 0x86,
  tuple3: 0x87,
  newTrue: 0x88,
  newFalse: 0x89,
  long1: 0x8a,
  shortBinUnicode: 0x8c,
  stackGlobal: 0x93,
  memoize: 0x94,
  frame: 0x95,
} as const;

const MARK = { mark: true };

/** The position in `bytes`; advanced as the pickle is read, so that several may follow each other. */
export interface PickleCursor {
  readonly bytes: Buffer;
  offset: number;
}

function broken(cursor: PickleCursor, what: string): DandelionError {
  return new DandelionError(
    'backbone-unavailable',
    `The weights file is not a torch state dict we can read: ${what} at byte ${cursor.offset}.`,
  );
}

/** Takes the next `length` bytes. */
function take(cursor: PickleCursor, length: number): Buffer {
  const end = cursor.offset + length;
  if (end > cursor.bytes.length) throw broken(cursor, 'it ends too early');
  const part = cursor.bytes.subarray(cursor.offset, end);
  cursor.offset = end;
  return part;
}

function takeLine(cursor: PickleCursor): string {
  const end = cursor.bytes.indexOf(0x0a, cursor.offset);
  if (end < 0) throw broken(cursor, 'it ends too early');
  const line = cursor.bytes.toString('utf8', cursor.offset, end);
  cursor.offset = end + 1;
  return line;
}

/** Little-endian two's complement of any length; values beyond 2^53 lose digits, which only magic numbers do. */
function takeLong(cursor: PickleCursor): number {
  const digits = take(cursor, take(cursor, 1).readUInt8());
  if (digits.length === 0) return 0;
  const hex = Buffer.from(digits).reverse().toString('hex');
  return Number(BigInt.asIntN(8 * digits.length, BigInt(`0x${hex}`)));
}

interface Machine {
  cursor: PickleCursor;
  rules: PickleRules;
  stack: PickleValue[];
  memo: Map<number, PickleValue>;
}

function pop(machine: Machine): PickleValue {
  const value = machine.stack.pop();
  if (value === undefined || value === MARK) throw broken(machine.cursor, 'the stack is empty');
  return value;
}

function popMany(machine: Machine, count: number): PickleValue[] {
  return Array.from({ length: count }, () => pop(machine)).reverse();
}

function popToMark(machine: Machine): PickleValue[] {
  const mark = machine.stack.lastIndexOf(MARK);
  if (mark < 0) throw broken(machine.cursor, 'a mark is missing');
  const items = machine.stack.splice(mark + 1);
  machine.stack.pop();
  return items;
}

function append(machine: Machine, items: PickleValue[]): void {
  const list = machine.stack.at(-1);
  if (!Array.isArray(list)) throw broken(machine.cursor, 'a list is missing');
  for (const item of items) list.push(item);
}

function setItems(machine: Machine, items: PickleValue[]): void {
  const dict = machine.stack.at(-1);
  if (!(dict instanceof Map)) throw broken(machine.cursor, 'a dict is missing');
  for (let i = 0; i + 1 < items.length; i += 2) dict.set(items[i] ?? null, items[i + 1] ?? null);
}

function remember(machine: Machine, index: number): void {
  machine.memo.set(index, machine.stack.at(-1) ?? null);
}

function recall(machine: Machine, index: number): PickleValue {
  const value = machine.memo.get(index);
  if (value === undefined) throw broken(machine.cursor, 'the memo has no such entry');
  return value;
}

function globalName(value: PickleValue): string | undefined {
  return typeof value === 'object' && value !== null && 'global' in value ? String(value.global) : undefined;
}

function reduce(machine: Machine): PickleValue {
  const [callable, args] = popMany(machine, 2);
  const name = globalName(callable ?? null);
  const call =
    name !== undefined && Object.hasOwn(machine.rules.callables, name)
      ? machine.rules.callables[name]
      : undefined;
  if (call === undefined) throw broken(machine.cursor, `the call of ${name ?? 'a non-global'} is refused`);
  if (!Array.isArray(args)) throw broken(machine.cursor, 'the arguments of a call are missing');
  return call(args);
}

/** Does one operation that changes the stack without leaving a new value on it; false if it is not one. */
function change(machine: Machine, code: number): boolean {
  const { cursor } = machine;
  if (code === opcode.protocol) take(cursor, 1);
  else if (code === opcode.frame) take(cursor, 8);
  else if (code === opcode.append) append(machine, [pop(machine)]);
  else if (code === opcode.appends) append(machine, popToMark(machine));
  else if (code === opcode.setItem) setItems(machine, popMany(machine, 2));
  else if (code === opcode.setItems) setItems(machine, popToMark(machine));
  else if (code === opcode.binPut) remember(machine, take(cursor, 1).readUInt8());
  else if (code === opcode.longBinPut) remember(machine, take(cursor, 4).readUInt32LE());
  else if (code === opcode.memoize) remember(machine, machine.memo.size);
  // The attributes of an object (torch keeps module versions there) are of no use to us and never applied.
  else if (code === opcode.build) pop(machine);
  else return false;
  return true;
}

/** Reads or makes the one value that the operation leaves on the stack. */
function produce(machine: Machine, code: number): PickleValue {
  const { cursor } = machine;
  switch (code) {
    case opcode.mark:
      return MARK;
    case opcode.emptyDict:
      return new Map();
    case opcode.emptyList:
    case opcode.emptyTuple:
      return [];
    case opcode.none:
      return null;
    case opcode.newTrue:
      return true;
    case opcode.newFalse:
      return false;
    case opcode.binInt1:
      return take(cursor, 1).readUInt8();
    case opcode.binInt2:
      return take(cursor, 2).readUInt16LE();
    case opcode.binInt:
      return take(cursor, 4).readInt32LE();
    case opcode.binFloat:
      return take(cursor, 8).readDoubleBE();
    case opcode.long1:
      return takeLong(cursor);
    case opcode.binUnicode:
      return take(cursor, take(cursor, 4).readUInt32LE()).toString('utf8');
    case opcode.shortBinUnicode:
      return take(cursor, take(cursor, 1).readUInt8()).toString('utf8');
    case opcode.binGet:
      return recall(machine, take(cursor, 1).readUInt8());
    case opcode.longBinGet:
      return recall(machine, take(cursor, 4).readUInt32LE());
    case opcode.tuple:
      return popToMark(machine);
    case opcode.tuple1:
      return popMany(machine, 1);
    case opcode.tuple2:
      return popMany(machine, 2);
    case opcode.tuple3:
      return popMany(machine, 3);
    case opcode.global:
      return { global: `${takeLine(cursor)}.${takeLine(cursor)}` };
    case opcode.stackGlobal:
      return { global: popMany(machine, 2).join('.') };
    case opcode.binPersistentId:
      return machine.rules.persistent(pop(machine));
    case opcode.reduce:
      return reduce(machine);
    default:
      throw broken(cursor, `operation 0x${code.toString(16)} is refused`);
  }
}

/**
 * Reads one Python pickle as plain data and leaves the cursor behind it.
 *
 * A pickle is a program that may call anything; this reader never constructs, imports or looks up anything but
 * the callables it is given. It knows the operations that torch writes (protocols 2 to 4) and refuses the rest.
 * Operations: CPython's `Lib/pickletools.py`.
 *
 * @throws DandelionError `backbone-unavailable` on a refused call or operation and on damaged data
 */
export function readPickle(cursor: PickleCursor, rules: PickleRules): PickleValue {
  const machine: Machine = { cursor, rules, stack: [], memo: new Map() };
  for (;;) {
    const code = take(cursor, 1).readUInt8();
    if (code === opcode.stop) return pop(machine);
    if (!change(machine, code)) machine.stack.push(produce(machine, code));
  }
}
