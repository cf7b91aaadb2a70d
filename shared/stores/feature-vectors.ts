/** Largest number of binary16; beyond it lies infinity. */
const LARGEST_HALF = 65_504;

/** A vector as it is kept: half floats (binary16), or floats where one holds a number that they cannot; little-endian. */
export function packVector(vector: Float32Array): Buffer {
  const { buffer, byteOffset, byteLength } = fitsHalves(vector) ? new Float16Array(vector) : vector;
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** A loop, as `every` takes ten times as long here. */
function fitsHalves(vector: Float32Array): boolean {
  for (const value of vector) if (!(Math.abs(value) <= LARGEST_HALF)) return false;
  return true;
}

/**
 * The numbers of a kept vector; or what is wrong with it, as the end of a sentence about it. One number spoils every
 * weight that is trained on it without a word, so none is let through that an engine cannot have meant.
 */
export function unpackVector(
  bytes: Buffer,
  dimension: number,
): { vector: Float16Array | Float32Array } | { fault: string } {
  const vector = numbersOf(bytes, dimension);
  if (vector === undefined)
    return { fault: `has ${bytes.byteLength} bytes where ${dimension} numbers belong` };
  const wrong = firstWrong(vector);
  if (wrong !== undefined) return { fault: `is ${vector[wrong]} at place ${wrong}` };
  return { vector };
}

/** Copies: an array of floats must start on a multiple of its size, which a driver's buffer does not promise. */
function numbersOf(bytes: Buffer, dimension: number): Float16Array | Float32Array | undefined {
  const { buffer } = Uint8Array.from(bytes);
  if (bytes.byteLength === dimension * Float16Array.BYTES_PER_ELEMENT) return new Float16Array(buffer);
  if (bytes.byteLength === dimension * Float32Array.BYTES_PER_ELEMENT) return new Float32Array(buffer);
  return undefined;
}

/** By its bits, which takes a tenth of the time that half floats take as numbers: all of the exponent are set. */
function firstWrong(vector: Float16Array | Float32Array): number | undefined {
  const isHalf = vector instanceof Float16Array;
  const words = isHalf ? new Uint16Array(vector.buffer) : new Uint32Array(vector.buffer);
  const exponent = isHalf ? 0x7c00 : 0x7f80_0000;
  for (let place = 0; place < words.length; place += 1) {
    if (((words[place] ?? 0) & exponent) === exponent) return place;
  }
  return undefined;
}
