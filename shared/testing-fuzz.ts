import fc from 'fast-check';
import { DandelionError } from './errors.ts';

/** The same runs every time, unless the environment asks for others. */
const keptSeed = 20_261_123;

/**
 * Parameters of a property that bad bytes are thrown at: FUZZ_SEED and FUZZ_RUNS go further than the kept seed and
 * the given number of runs. A failure prints the seed that brings it back.
 */
export function fuzzing(runs: number): { seed: number; numRuns: number } {
  const { FUZZ_SEED: seed, FUZZ_RUNS: numRuns } = process.env;
  return { seed: Number(seed ?? keptSeed), numRuns: Number(numRuns ?? runs) };
}

/** One injury: `at` is a share of the length. */
interface Mutation {
  kind: 'set' | 'insert' | 'remove' | 'repeat' | 'cut';
  at: number;
  bytes: Uint8Array;
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom('set', 'insert', 'remove', 'repeat', 'cut'),
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
});

/** Valid bytes with a few injuries: bytes changed, put in, taken out or repeated, or the end cut off. */
export function mutated(valid: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Buffer> {
  return fc
    .tuple(valid, fc.array(mutation, { minLength: 1, maxLength: 4 }))
    .map(([bytes, mutations]) => mutations.reduce<Buffer>(injure, Buffer.from(bytes)));
}

function injure(bytes: Buffer, { kind, at, bytes: given }: Mutation): Buffer {
  const start = Math.floor(at * bytes.length);
  const end = start + given.length;
  switch (kind) {
    case 'set':
      return Buffer.concat([bytes.subarray(0, start), given, bytes.subarray(end)]);
    case 'insert':
      return Buffer.concat([bytes.subarray(0, start), given, bytes.subarray(start)]);
    case 'remove':
      return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
    case 'repeat':
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(start)]);
    case 'cut':
      return bytes.subarray(0, start);
  }
}

/** True for what bad input may cause: an error of ours that blames the caller. */
export function isRefusal(error: unknown): boolean {
  return error instanceof DandelionError && error.status >= 400 && error.status < 500;
}

/**
 * Waits for an outcome; anything thrown must be a refusal.
 *
 * @throws Error when it takes longer than `patienceMs`, and whatever is thrown that is no refusal
 */
export async function settlesOrRefuses(work: Promise<unknown>, patienceMs = 10_000): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came of it within ${patienceMs} ms`)), patienceMs);
  });
  try {
    await Promise.race([work, late]);
  } catch (error) {
    if (!isRefusal(error)) throw error;
  } finally {
    clearTimeout(timer);
  }
}
