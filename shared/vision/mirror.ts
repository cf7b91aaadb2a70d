/**
 * Mirrors square RGB photos left to right, the augmentation of training.
 *
 * @param pixels n x size x size x 3, row-major
 */
export function mirrorPixels(pixels: Uint8Array, size: number): Uint8Array {
  const mirrored = new Uint8Array(pixels.length);
  const rowLength = size * 3;
  for (let row = 0; row < pixels.length; row += rowLength) {
    for (let x = 0; x < size; x++) {
      const from = row + x * 3;
      const to = row + (size - 1 - x) * 3;
      mirrored[to] = pixels[from] ?? 0;
      mirrored[to + 1] = pixels[from + 1] ?? 0;
      mirrored[to + 2] = pixels[from + 2] ?? 0;
    }
  }
  return mirrored;
}
