/** Places of photos that nobody works on, by their length. */
const free = new Map<number, Uint8Array[]>();

/**
 * Lends memory for a decoded photo, which other threads see too, until the work settles. It is used again and again:
 * buffers of its own for each photo would wait for garbage collections that come too seldom, 10 MB of them in each thread.
 */
export async function withPhotoMemory<Result>(
  sizeBytes: number,
  work: (memory: Uint8Array) => Promise<Result>,
): Promise<Result> {
  const places = free.get(sizeBytes) ?? [];
  free.set(sizeBytes, places);
  const memory = places.pop() ?? new Uint8Array(new SharedArrayBuffer(sizeBytes));
  try {
    return await work(memory);
  } finally {
    places.push(memory);
  }
}
