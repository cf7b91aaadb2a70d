import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { decodePhoto } from './decode.ts';
import { drawnClasses, drawPhoto } from './drawn.ts';
import { groupNearDuplicates, hammingDistance, nearDuplicateDistance, perceptualHash } from './similarity.ts';

const hashOf = async (bytes: Buffer) => perceptualHash(await decodePhoto(bytes));

const hash = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => value.toString(16).padStart(16, '0'));

/** The definition, bit by bit, to compare the fast way with. */
const slowDistance = (a: string, b: string) =>
  [...(BigInt(`0x${a}`) ^ BigInt(`0x${b}`)).toString(2)].filter((bit) => bit === '1').length;

describe('perceptualHash', () => {
  test('is 16 hex digits and the same for the same pixels', async () => {
    const photo = await drawPhoto('dandelion', 1);
    expect(await hashOf(photo)).toMatch(/^[0-9a-f]{16}$/);
    expect(await hashOf(photo)).toBe(await hashOf(photo));
  });

  test.each([
    ['a lower JPEG quality', (photo: Buffer) => sharp(photo).jpeg({ quality: 40 })],
    ['WebP', (photo: Buffer) => sharp(photo).webp({ quality: 60 })],
    ['half the size', (photo: Buffer) => sharp(photo).resize(200)],
    ['four times the size', (photo: Buffer) => sharp(photo).resize(1600)],
    ['a little more light', (photo: Buffer) => sharp(photo).modulate({ brightness: 1.1 })],
  ])('stays near-duplicate under %s', async (_, change) => {
    for (const label of drawnClasses) {
      const photo = await drawPhoto(label, 11);
      const distance = hammingDistance(await hashOf(photo), await hashOf(await change(photo).toBuffer()));
      expect(distance, label).toBeLessThanOrEqual(nearDuplicateDistance);
    }
  });

  test('keeps different photos apart, those of one class too', async () => {
    const hashes: string[] = [];
    for (const label of drawnClasses) {
      for (let seed = 0; seed < 12; seed++) hashes.push(await hashOf(await drawPhoto(label, seed)));
    }
    const distances = hashes.flatMap((one, at) =>
      hashes.slice(0, at).map((other) => hammingDistance(one, other)),
    );
    expect(Math.min(...distances)).toBeGreaterThan(nearDuplicateDistance);
  });

  test('gives all flat photos one hash', async () => {
    const flat = (background: string) =>
      sharp({ create: { width: 90, height: 60, channels: 3, background } })
        .png()
        .toBuffer();
    expect(await hashOf(await flat('#336699'))).toBe('0000000000000000');
    expect(await hashOf(await flat('#ffffff'))).toBe('0000000000000000');
  });

  test('takes photos decoded smaller than its grid', async () => {
    const photo = await decodePhoto(await drawPhoto('tulip', 1), { size: 20 });
    expect(perceptualHash(photo)).toMatch(/^[0-9a-f]{16}$/);
  });
});

describe('hammingDistance', () => {
  test('counts differing bits', () => {
    expect(hammingDistance('0000000000000000', 'ffffffffffffffff')).toBe(64);
    expect(hammingDistance('8000000000000001', '0000000000000000')).toBe(2);
    expect(hammingDistance('00000000000000AB', '00000000000000ab')).toBe(0);
    fc.assert(fc.property(hash, hash, (a, b) => hammingDistance(a, b) === slowDistance(a, b)));
  });

  test('refuses what is not a hash', () => {
    expect(() => hammingDistance('0000000000000000', 'xyz')).toThrow(/16 hex digits/);
  });
});

describe('groupNearDuplicates', () => {
  test('joins photos through others and names the group by its smallest digest', () => {
    const groups = groupNearDuplicates(
      [
        { sha256: 'd', perceptualHash: '0000000000000000' },
        { sha256: 'b', perceptualHash: '000000000000000f' },
        { sha256: 'c', perceptualHash: '00000000000000ff' },
        { sha256: 'a', perceptualHash: 'ffffffff00000000' },
      ],
      4,
    );
    expect(Object.fromEntries(groups)).toEqual({ a: 'a', b: 'b', c: 'b', d: 'b' });
  });

  test('is empty for no photos', () => {
    expect(groupNearDuplicates([]).size).toBe(0);
  });

  test('joins equal hashes even at distance 0, and nothing else', () => {
    const groups = groupNearDuplicates(
      [
        { sha256: '2', perceptualHash: '00000000000000ab' },
        { sha256: '1', perceptualHash: '00000000000000AB' },
        { sha256: '0', perceptualHash: '00000000000000aa' },
      ],
      0,
    );
    expect(Object.fromEntries(groups)).toEqual({ 0: '0', 1: '1', 2: '1' });
  });

  test('finds exactly the groups that comparing all pairs finds', () => {
    // Flipping few bits of few bases makes the near pairs that random hashes never have.
    const near = fc
      .tuple(fc.constantFrom('0123456789abcdef', 'fedcba9876543210'), fc.array(fc.nat(63), { maxLength: 12 }))
      .map(([base, bits]) => bits.reduce((value, bit) => value ^ (1n << BigInt(bit)), BigInt(`0x${base}`)))
      .map((value) => value.toString(16).padStart(16, '0'));
    const photos = fc
      .array(fc.oneof(near, hash), { maxLength: 40 })
      .map((hashes) =>
        hashes.map((perceptualHash, at) => ({ sha256: `${(at * 7919) % 1000}-${at}`, perceptualHash })),
      );
    fc.assert(
      fc.property(photos, fc.integer({ min: 0, max: 20 }), (items, maxDistance) => {
        const expected = new Map(items.map(({ sha256 }) => [sha256, sha256]));
        for (let changed = true; changed; ) {
          changed = false;
          for (const a of items) {
            for (const b of items) {
              const [groupA = '', groupB = ''] = [expected.get(a.sha256), expected.get(b.sha256)];
              if (groupB >= groupA || slowDistance(a.perceptualHash, b.perceptualHash) > maxDistance)
                continue;
              expected.set(a.sha256, groupB);
              changed = true;
            }
          }
        }
        expect(groupNearDuplicates(items, maxDistance)).toEqual(expected);
      }),
    );
  });

  test('does not depend on the order of the photos', () => {
    const items = ['0', '1', '3', '7', 'f', '1f', '3f'].map((tail, at) => ({
      sha256: String(at),
      perceptualHash: tail.padStart(16, '0'),
    }));
    const forward = [...groupNearDuplicates(items, 1)];
    const backward = [...groupNearDuplicates(items.toReversed(), 1)];
    expect(backward.sort()).toEqual(forward.sort());
  });
});
